//! x
fn main(){ let d = burn::tensor::Device::flex().autodiff(); let x = burn::tensor::Tensor::<2>::ones([2,2], &d).require_grad(); let g = (x.clone().matmul(x.clone())).sum().backward(); let _ = x.grad(&g); }

//! A profile of a step: the kernels that a device runs, and how long each takes.
//!
//! CubeCL brackets every launch with two of the device's own time stamps, and nothing waits for them before the work is
//! over, so that kernels run back to back as they do otherwise.

use std::collections::BTreeMap;
use std::time::Duration;

/// The parts of a step that kernels belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepPart {
    /// Matrix products, those of the head included.
    Products,
    /// Attention, forward and backward.
    Attention,
    /// Softmax and cross-entropy of the head's logits.
    Loss,
    /// Weights in 4 bits becoming numbers.
    Unpacking,
    /// The optimizer's step.
    Optimizer,
    /// Sums over a dimension.
    Sums,
    /// Norms, rotations, gates, sums of two, casts and copies.
    Elementwise,
}

impl StepPart {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Products => "products",
            Self::Attention => "attention",
            Self::Loss => "loss",
            Self::Unpacking => "unpacking",
            Self::Optimizer => "optimizer",
            Self::Sums => "sums",
            Self::Elementwise => "elementwise",
        }
    }

    /// That of a kernel, by the path of its type.
    fn of(kernel: &str) -> Self {
        let words: [(&[&str], Self); 6] = [
            (&["attention", "attend"], Self::Attention),
            (&["softmax_loss", "cross_entropy"], Self::Loss),
            (&["nf4", "frozen"], Self::Unpacking),
            (&["adam"], Self::Optimizer),
            (&["matmul", "gemm", "gemv", "cmma"], Self::Products),
            (&["reduce", "shared_sum"], Self::Sums),
        ];
        let kernel = kernel.to_ascii_lowercase();
        let named = words.iter().find(|(words, _)| words.iter().any(|word| kernel.contains(word)));
        named.map_or(Self::Elementwise, |(_, part)| *part)
    }
}

/// All launches of one kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelTime {
    /// The kernel, without the path of its type.
    pub name: String,
    /// The part of the step.
    pub part: StepPart,
    /// Number of launches.
    pub launches: usize,
    /// Time in all.
    pub time: Duration,
}

/// The kernels that ran while a profile was taken.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Profiled {
    /// Kernels, those that took longest first.
    pub kernels: Vec<KernelTime>,
    /// Time between the first kernel's begin and the last one's end in which none ran; `None` where the device has no
    /// clock of its own, so that times are those of the host.
    pub idle: Option<Duration>,
}

impl Profiled {
    /// Time and launches by part, those that took longest first.
    pub fn parts(&self) -> Vec<(StepPart, Duration, usize)> {
        let mut parts = BTreeMap::<StepPart, (Duration, usize)>::new();
        for kernel in &self.kernels {
            let (time, launches) = parts.entry(kernel.part).or_default();
            *time += kernel.time;
            *launches += kernel.launches;
        }
        let mut parts: Vec<_> = parts.into_iter().map(|(part, (time, launches))| (part, time, launches)).collect();
        parts.sort_by_key(|(_, time, _)| std::cmp::Reverse(*time));
        parts
    }

    /// Time of all kernels together.
    pub fn busy(&self) -> Duration {
        self.kernels.iter().map(|kernel| kernel.time).sum()
    }

    /// From each launch's kernel, begin and end; `on_device` where these are of the device's clock.
    #[cfg_attr(not(any(feature = "cube", test)), expect(dead_code, reason = "nothing is launched"))]
    fn of(launches: &[(&'static str, Duration, Duration)], on_device: bool) -> Self {
        let mut kernels = BTreeMap::<&str, KernelTime>::new();
        for &(kernel, begin, end) in launches {
            let entry = kernels.entry(kernel).or_insert_with(|| KernelTime {
                name: short(kernel),
                part: StepPart::of(kernel),
                launches: 0,
                time: Duration::ZERO,
            });
            entry.launches += 1;
            entry.time += end.saturating_sub(begin);
        }
        let mut kernels: Vec<KernelTime> = kernels.into_values().collect();
        kernels.sort_by_key(|kernel| std::cmp::Reverse(kernel.time));
        Self { kernels, idle: on_device.then(|| idle(launches)) }
    }
}

/// Time in which no launch runs, between the first begin and the last end.
fn idle(launches: &[(&'static str, Duration, Duration)]) -> Duration {
    let mut spans: Vec<(Duration, Duration)> = launches.iter().map(|(_, begin, end)| (*begin, *end)).collect();
    spans.sort_unstable();
    let mut idle = Duration::ZERO;
    let mut reached = spans.first().map_or(Duration::ZERO, |span| span.0);
    for (begin, end) in spans {
        idle += begin.saturating_sub(reached);
        reached = reached.max(end);
    }
    idle
}

/// The path of a type without the modules that it, and what it is made of, lie in.
fn short(path: &str) -> String {
    let mut name = String::with_capacity(path.len());
    let mut word = String::new();
    for letter in path.chars() {
        match letter {
            _ if letter.is_alphanumeric() || letter == '_' => word.push(letter),
            ':' => word.clear(),
            _ => {
                name.push_str(&word);
                name.push(letter);
                word.clear();
            }
        }
    }
    name + &word
}

#[cfg(feature = "cube")]
pub use observed::Profile;

#[cfg(feature = "cube")]
mod observed {
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::Instant;

    use cubecl::logging::{Duration, LaunchObservation, LaunchObserver, ProfileDuration, TimingMethod, TimingRequest};

    use super::Profiled;

    /// Watches every launch of the process until it is finished.
    pub struct Profile {
        kept: Arc<Kept>,
        epoch: Instant,
        observation: LaunchObservation,
    }

    #[derive(Default)]
    struct Kept {
        /// Measurements that nothing has waited for.
        unread: Mutex<Vec<(&'static str, ProfileDuration)>>,
        /// Kernels that the runtime measured by the host's clock.
        read: Mutex<Vec<(&'static str, Duration)>>,
    }

    impl LaunchObserver for Kept {
        fn launched(&self, _: &'static str) {}

        fn timing(&self) -> TimingRequest {
            TimingRequest::Deferred
        }

        fn profiled(&self, kernel: &'static str, profile: ProfileDuration) {
            self.unread.lock().unwrap_or_else(PoisonError::into_inner).push((kernel, profile));
        }

        fn timed(&self, kernel: &'static str, duration: Duration, _: TimingMethod) {
            self.read.lock().unwrap_or_else(PoisonError::into_inner).push((kernel, duration));
        }
    }

    impl Profile {
        /// Begins to watch at `epoch`, which is now.
        pub fn start(epoch: Instant) -> Self {
            let kept = Arc::new(Kept::default());
            Self { observation: LaunchObservation::new(kept.clone()), kept, epoch }
        }

        /// The kernels that ran since; waits for the device.
        pub fn finish(self) -> Profiled {
            drop(self.observation);
            let unread = std::mem::take(&mut *self.kept.unread.lock().unwrap_or_else(PoisonError::into_inner));
            let read = std::mem::take(&mut *self.kept.read.lock().unwrap_or_else(PoisonError::into_inner));
            let mut on_device = read.is_empty() && !unread.is_empty();
            let mut launches: Vec<_> = read.into_iter().map(|(kernel, time)| (kernel, Duration::ZERO, time)).collect();
            for (kernel, profile) in unread {
                on_device &= profile.timing_method() == TimingMethod::Device;
                if let Some(ticks) = cubecl::future::block_on(profile.resolve()) {
                    let begin = ticks.start_duration_since(self.epoch);
                    launches.push((kernel, begin, begin + ticks.duration()));
                }
            }
            Profiled::of(&launches, on_device)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "cube")]
    #[test]
    fn a_product_on_the_device_is_seen_and_timed() {
        use crate::testing::{device, draw, skipped};

        let device = device();
        if device == burn::tensor::Device::flex() {
            return skipped("the CPU launches no kernels");
        }
        let matrix = draw(1, [48, 48], 1.0).to_device(&device);
        let product = || matrix.clone().matmul(matrix.clone()).into_data();
        // What is measured to find the fastest variant is not watched.
        let expected = product();
        let profile = Profile::start(std::time::Instant::now());
        product().assert_eq(&expected, true);
        let found = profile.finish();
        let products = found.parts().into_iter().find(|(part, ..)| *part == StepPart::Products);
        let (_, time, launches) = products.unwrap_or_else(|| panic!("no product in {:?}", found.kernels));
        assert!(launches >= 1 && time > Duration::ZERO && time <= found.busy(), "{:?}", found.kernels);
    }

    #[test]
    fn launches_are_summed_by_kernel_and_part_and_gaps_between_them_found() {
        let at = Duration::from_millis;
        let launches = [
            ("cubek_matmul::Entry<cubecl::F32>", at(10), at(14)),
            ("kernels::adam::Step", at(20), at(21)),
            ("cubek_matmul::Entry<cubecl::F32>", at(14), at(17)),
            // Beside another.
            ("burn_cubecl::unary::Exp", at(16), at(18)),
        ];
        let found = Profiled::of(&launches, true);
        assert_eq!(found.idle, Some(at(2)));
        assert_eq!(found.busy(), at(10));
        let first = &found.kernels[0];
        assert_eq!(
            (first.name.as_str(), first.part, first.launches, first.time),
            ("Entry<F32>", StepPart::Products, 2, at(7))
        );
        let parts = found.parts();
        assert_eq!(parts[0], (StepPart::Products, at(7), 2));
        assert_eq!(
            parts.iter().map(|part| part.0).collect::<Vec<_>>(),
            [StepPart::Products, StepPart::Elementwise, StepPart::Optimizer]
        );
        assert_eq!(Profiled::of(&launches, false).idle, None);
    }
}

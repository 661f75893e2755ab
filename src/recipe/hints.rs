//! Implementation hints: keys that choose among kernels or placements and cannot change the result.
//!
//! They are accepted, type and value checked, and listed with the reason why they have no effect
//! here. A key that is not in this table is no hint, however harmless it looks.

use super::reader::Section;
use super::refused::{Off, Refused, axolotl};
use super::scalars::{boolean, scalar};
use super::yaml::{Node, Value};

/// A key that was accepted and has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The dotted key, as written.
    pub key: String,
    /// Its value on one line.
    pub value: String,
    /// Where it is.
    pub at: String,
    /// Why it has no effect.
    pub why: String,
}

const ATTENTION: &str = "attention has one implementation here, exact and without stored scores";
const FUSED: &str = "it only fuses operations into faster kernels, and ours are chosen by device";
const LOSS: &str = "the loss runs in chunks over trained positions, logits are never stored whole";
const ONE_DEVICE: &str = "training runs on one device";

/// Switches that are hints whether on or off.
const SWITCHES: &[(&str, &str)] = &[
    ("flash_attention", ATTENTION),
    ("sdp_attention", ATTENTION),
    ("xformers_attention", ATTENTION),
    ("flex_attention", ATTENTION),
    ("eager_attention", ATTENTION),
    ("liger_rope", FUSED),
    ("liger_rms_norm", FUSED),
    ("liger_rms_norm_gated", FUSED),
    ("liger_layer_norm", FUSED),
    ("liger_swiglu", FUSED),
    ("liger_glu_activation", FUSED),
    ("liger_cross_entropy", LOSS),
    ("liger_fused_linear_cross_entropy", LOSS),
    ("cut_cross_entropy", LOSS),
    ("lora_mlp_kernel", FUSED),
    ("lora_qkv_kernel", FUSED),
    ("lora_o_kernel", FUSED),
    ("lora_embedding_kernel", FUSED),
    ("use_kernels", FUSED),
    ("tokenizer_use_fast", "there is one tokenizer implementation, the fast one"),
    ("low_cpu_mem_usage", "weights are always read tensor by tensor"),
    ("ddp_find_unused_parameters", ONE_DEVICE),
    ("skip_prepare_dataset", "rows are always prepared while they are read"),
];

/// Plugins that do nothing but switch kernels on.
const PLUGINS: &[&str] =
    &["axolotl.integrations.liger.LigerPlugin", "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"];

/// Attention implementations that compute exact attention.
const ATTENTION_NAMES: &[&str] =
    &["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "xformers"];

const CHECKPOINTING: &[Refused] = &[axolotl(
    Off::Never,
    "remove it; layers are recomputed with the same dropout masks",
    "preserve_rng_state context_fn determinism_check debug early_stop",
)];

/// Reads every hint key of the recipe's top level.
pub(super) fn read(top: &mut Section<'_>) {
    for (key, why) in SWITCHES {
        let Some(node) = top.take(key) else { continue };
        if scalar(node).and_then(boolean).is_some() {
            top.findings.hint(key, node, why);
        } else {
            top.refuse(key, node, "true or false");
        }
    }
    if let Some(node) = top.take("torch_compile") {
        if scalar(node).is_some_and(|text| boolean(text).is_some() || text == "auto") {
            top.findings.hint("torch_compile", node, "there is no torch here; kernels are compiled as they are");
        } else {
            top.refuse("torch_compile", node, "true, false or auto");
        }
    }
    attention(top);
    plugins(top);
    checkpointing(top);
}

fn attention(top: &mut Section<'_>) {
    let Some(node) = top.take("attn_implementation") else {
        return;
    };
    let known = |name: &str| {
        ATTENTION_NAMES.contains(&name)
            || name.strip_prefix("kernels-community/").is_some_and(|kernel| kernel.contains("flash-attn"))
    };
    if scalar(node).is_some_and(known) {
        top.findings.hint("attn_implementation", node, ATTENTION);
    } else {
        let advice = ", or a `kernels-community/` flash-attn kernel; all of them mean the exact attention used here";
        top.unsupported("attn_implementation", node, ATTENTION_NAMES, advice);
    }
}

fn plugins(top: &mut Section<'_>) {
    let Some(node) = top.take("plugins") else {
        return;
    };
    let Value::List(items) = &node.value else {
        top.refuse("plugins", node, "a list of plugin names");
        return;
    };
    for (index, item) in items.iter().enumerate() {
        if scalar(item).is_some_and(|name| PLUGINS.contains(&name)) {
            top.findings.hint(&format!("plugins.{index}"), item, "it only switches kernels on");
        } else {
            let advice = "; these switch kernels on and are listed as hints, Python code cannot be loaded";
            top.unsupported(&format!("plugins.{index}"), item, PLUGINS, advice);
        }
    }
}

/// `gradient_checkpointing_kwargs`, of which only the choice of torch's two mechanisms is a hint.
fn checkpointing(top: &mut Section<'_>) {
    let Some(mut section) = top.section("gradient_checkpointing_kwargs") else {
        return;
    };
    if let Some(node) = section.take("use_reentrant") {
        if scalar(node).and_then(boolean).is_some() {
            let why = "recompute has one mechanism here";
            section.findings.hint("gradient_checkpointing_kwargs.use_reentrant", node, why);
        } else {
            section.refuse("use_reentrant", node, "true or false");
        }
    }
    section.finish(CHECKPOINTING);
}

/// Notes a value of an honoured key that differs from another only in how it is computed.
pub(super) fn same_result(top: &Section<'_>, key: &str, node: &Node, why: &str) {
    top.findings.hint(key, node, why);
}

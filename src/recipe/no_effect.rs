//! Implementation hints: keys that choose among kernels or placements and cannot change the result.
//!
//! They are accepted, type and value checked, and listed with the reason why they have no effect
//! here. A key that is not in these tables is no such hint, however harmless it looks.

use super::kinds::Reading;
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
    /// The place of the value.
    pub at: String,
    /// The reason why it has no effect.
    pub why: String,
}

/// A row: a key that has no effect here.
pub(super) struct NoEffect {
    pub(super) key: &'static str,
    pub(super) accepts: Accepts,
    pub(super) why: &'static str,
}

/// The values that a key without effect may have.
pub(super) enum Accepts {
    /// `true` or `false`.
    Flag,
    /// The same, or `auto`.
    FlagOrAuto,
    /// One of [`ATTENTION_NAMES`], or a kernel of the hub.
    Attention,
    /// A list of some of [`PLUGINS`].
    Plugins,
    /// Anything.
    Any,
    /// A mapping of such keys.
    Section(&'static [NoEffect], &'static [Refused]),
}

const ATTENTION: &str = "attention has one implementation here, exact and without stored scores";
const FUSED: &str = "it only fuses operations into faster kernels, which are chosen by device here";
const LOSS: &str = "the loss runs in chunks over trained positions, logits are never stored whole";
const ONE_DEVICE: &str = "training runs on one device";
const PLUGIN: &str = "it only switches kernels on";

/// Plugins that do nothing but switch kernels on.
pub(super) const PLUGINS: &[&str] =
    &["axolotl.integrations.liger.LigerPlugin", "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"];

/// Attention implementations that compute exact attention.
pub(super) const ATTENTION_NAMES: &[&str] =
    &["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "xformers"];

const fn flag(key: &'static str, why: &'static str) -> NoEffect {
    NoEffect { key, accepts: Accepts::Flag, why }
}

/// The recipe's top level.
pub(super) const TOP: &[NoEffect] = &[
    NoEffect { key: "attn_implementation", accepts: Accepts::Attention, why: ATTENTION },
    flag("flash_attention", ATTENTION),
    flag("sdp_attention", ATTENTION),
    flag("xformers_attention", ATTENTION),
    flag("flex_attention", ATTENTION),
    flag("eager_attention", ATTENTION),
    NoEffect { key: "plugins", accepts: Accepts::Plugins, why: PLUGIN },
    flag("liger_rope", FUSED),
    flag("liger_rms_norm", FUSED),
    flag("liger_rms_norm_gated", FUSED),
    flag("liger_layer_norm", FUSED),
    flag("liger_swiglu", FUSED),
    flag("liger_glu_activation", FUSED),
    flag("liger_cross_entropy", LOSS),
    flag("liger_fused_linear_cross_entropy", LOSS),
    flag("cut_cross_entropy", LOSS),
    flag("lora_mlp_kernel", FUSED),
    flag("lora_qkv_kernel", FUSED),
    flag("lora_o_kernel", FUSED),
    flag("lora_embedding_kernel", FUSED),
    flag("use_kernels", FUSED),
    NoEffect {
        key: "torch_compile",
        accepts: Accepts::FlagOrAuto,
        why: "there is no torch here; kernels are compiled as they are",
    },
    NoEffect {
        key: "gradient_checkpointing_kwargs",
        accepts: Accepts::Section(
            &[flag("use_reentrant", "recompute has one mechanism here")],
            &[axolotl(
                Off::Never,
                "remove it; layers are recomputed with the same dropout masks",
                "preserve_rng_state context_fn determinism_check debug early_stop",
            )],
        ),
        why: "recompute has one mechanism here",
    },
    flag("tokenizer_use_fast", "there is one tokenizer implementation, the fast one"),
    flag("low_cpu_mem_usage", "weights are always read tensor by tensor"),
    flag("ddp_find_unused_parameters", ONE_DEVICE),
    flag("skip_prepare_dataset", "rows are always prepared while they are read"),
];

/// The section `bnb_config_kwargs`.
pub(super) const BNB: &[NoEffect] = &[
    NoEffect {
        key: "bnb_4bit_quant_storage",
        accepts: Accepts::Any,
        why: "codes are kept as bytes, and nothing is sharded",
    },
    NoEffect { key: "llm_int8_threshold", accepts: Accepts::Any, why: "it is for 8-bit bases" },
    NoEffect { key: "llm_int8_has_fp16_weight", accepts: Accepts::Any, why: "it is for 8-bit bases" },
];

/// Checks the value of a key that has no effect, and notes it.
pub(super) fn read(row: &NoEffect, reading: &Reading<'_>, node: &Node) {
    let text = scalar(node);
    match row.accepts {
        Accepts::Any => {}
        Accepts::Flag if text.and_then(boolean).is_some() => {}
        Accepts::Flag => return reading.refuse(node, "true or false"),
        Accepts::FlagOrAuto if text.is_some_and(|text| boolean(text).is_some() || text == "auto") => {}
        Accepts::FlagOrAuto => return reading.refuse(node, "true, false or auto"),
        Accepts::Attention if text.is_some_and(is_exact) => {}
        Accepts::Attention => {
            let advice =
                ", or a `kernels-community/` flash-attn kernel; all of them mean the exact attention used here";
            return reading.unsupported(node, ATTENTION_NAMES, advice);
        }
        Accepts::Plugins => return plugins(reading, node),
        Accepts::Section(no_effect, refused) => {
            return Section::new(reading.findings, &reading.name, node, reading.place).finish(no_effect, refused);
        }
    }
    reading.findings.no_effect(&reading.name, node, row.why);
}

/// True for a name of an exact attention.
fn is_exact(name: &str) -> bool {
    let is_flash = |kernel: &str| kernel.contains("flash-attn");
    ATTENTION_NAMES.contains(&name) || name.strip_prefix("kernels-community/").is_some_and(is_flash)
}

fn plugins(reading: &Reading<'_>, node: &Node) {
    let Value::List(items) = &node.value else {
        return reading.refuse(node, "a list of plugin names");
    };
    for (index, item) in items.iter().enumerate() {
        let inside = reading.inside(&index.to_string(), item.at);
        if scalar(item).is_some_and(|name| PLUGINS.contains(&name)) {
            inside.findings.no_effect(&inside.name, item, PLUGIN);
        } else {
            let advice = "; these switch kernels on and are listed as hints, Python code cannot be loaded";
            inside.unsupported(item, PLUGINS, advice);
        }
    }
}

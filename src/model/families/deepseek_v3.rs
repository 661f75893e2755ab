//! DeepSeek V3 and R1.
//!
//! After transformers' `configuration_deepseek_v3.py`: latent attention, dense first layers, experts with
//! a group-limited sigmoid router and shared experts above. Layers that predict further tokens
//! (`num_nextn_predict_layers`) are no part of the decoder.

use super::config::{AS_PUBLISHED, Config, ConfigError, OTHER_FAMILY};
use super::dense::{heads, part_of_head};
use super::rope::Rope;
use super::trunk::{Defaults, INTERMEDIATE_LIMIT, Trunk};
use super::{Family, Ignored, Reading, experts, switches};
use crate::model::spec::{
    AttentionSpec, ExpertStorage, ExpertsSpec, FeedForwardSpec, LatentSpec, LayerSpec, MlpSpec, NormPlacement,
    NormSpec, RopePairs, RouterGroups, RouterSpec, Scoring,
};

/// The family's row.
pub(super) const FAMILY: Family =
    Family { name: "deepseek_v3", model_types: &["deepseek_v3"], example: "deepseek-ai/DeepSeek-V3-Base", read };

const READS: &[&str] = &["kv_lora_rank", "q_lora_rank", "n_routed_experts", "n_shared_experts", "num_local_experts"];
/// Keys that repeat what other keys say, and the number of processes that experts were spread over.
const SIZES_ELSEWHERE: &[&str] = &["num_key_value_heads", "head_dim", "qk_head_dim", "ep_size"];
const RANK_LIMIT: usize = 1 << 20;

fn read(config: &Config) -> Result<Reading, ConfigError> {
    switches::refuse(config, READS)?;
    config.without_effect(SIZES_ELSEWHERE);
    for (key, accepted) in [("scoring_func", "sigmoid"), ("topk_method", "noaux_tc")] {
        if config.text(key)?.is_some_and(|value| value != accepted) {
            return Err(config.unsupported(key, format!("`{accepted}`"), OTHER_FAMILY));
        }
    }
    if config.size("moe_layer_freq", usize::MAX)?.is_some_and(|every| every != 1) {
        return Err(config.unsupported("moe_layer_freq", "1", OTHER_FAMILY));
    }
    let trunk = Trunk::read(config, Defaults { positions: 4096, epsilon: 1e-6, tied: false })?;
    let rope = Rope::read(config)?;
    let attention = attention(config, &rope)?;
    let dense = trunk.mlp("intermediate_size")?;
    let expert_width = config.size("moe_intermediate_size", INTERMEDIATE_LIMIT)?.unwrap_or(2048);
    let count = experts::count(config, &["n_routed_experts", "num_local_experts"])?;
    let shared = config.count("n_shared_experts", RANK_LIMIT)?.unwrap_or(1);
    let experts = ExpertsSpec {
        count,
        router: router(config, count)?,
        expert: MlpSpec { intermediate: expert_width, ..dense },
        storage: ExpertStorage::Separate,
        shared: (shared > 0).then_some(MlpSpec { intermediate: expert_width * shared, ..dense }),
        names: experts::NAMES,
    };
    let first = config.count("first_k_dense_replace", usize::MAX)?.unwrap_or(3);
    let layer = |index: usize| LayerSpec {
        attention: AttentionSpec::Latent(attention.clone()),
        feed_forward: if index < first {
            FeedForwardSpec::Dense(dense)
        } else {
            FeedForwardSpec::Experts(experts.clone())
        },
        feed_forward_name: "mlp",
        norms: NormPlacement::Before(trunk.norm),
    };
    let further = config.count("num_nextn_predict_layers", RANK_LIMIT)?.unwrap_or(0);
    let ignored = (trunk.layers..trunk.layers + further).map(|layer| Ignored {
        prefix: format!("model.layers.{layer}."),
        what: "a layer that predicts further tokens",
    });
    Ok(Reading {
        spec: trunk.decoder((0..trunk.layers).map(layer).collect()),
        rope: rope.to_string(),
        ignored: ignored.collect(),
    })
}

fn attention(config: &Config, rope: &Rope) -> Result<LatentSpec, ConfigError> {
    let (nope_dim, rope_dim) = (part_of_head(config, "qk_nope_head_dim")?, part_of_head(config, "qk_rope_head_dim")?);
    if !rope_dim.is_multiple_of(2) {
        return Err(config.wrong("qk_rope_head_dim", "an even number", AS_PUBLISHED));
    }
    let pairs = if config.flag("rope_interleave")?.unwrap_or(true) { RopePairs::Neighbours } else { RopePairs::Halves };
    let scale = ((nope_dim + rope_dim) as f64).powf(-0.5) * rope.latent_score_factor();
    Ok(LatentSpec {
        heads: heads(config)?,
        query_rank: config.size("q_lora_rank", RANK_LIMIT)?,
        kv_rank: config.required_size("kv_lora_rank", RANK_LIMIT)?,
        nope_dim,
        rope_dim,
        value_dim: part_of_head(config, "v_head_dim")?,
        bias: config.flag("attention_bias")?.unwrap_or(false),
        scale: scale as f32,
        // These two norms have this epsilon whatever the configuration says of the others.
        norm: NormSpec::plain(1e-6),
        rope: rope.spec(rope_dim, pairs),
    })
}

fn router(config: &Config, count: usize) -> Result<RouterSpec, ConfigError> {
    let mut router = experts::router(config, count, 8)?;
    // Not written, the groups are those of the published model; `null` means none.
    let groups = config.size("n_group", count)?.unwrap_or(if config.has("n_group") { 1 } else { 8 });
    let kept = config.size("topk_group", groups)?.unwrap_or(if config.has("topk_group") { groups } else { 4 });
    if !count.is_multiple_of(groups) || kept > groups || kept * (count / groups) < router.chosen {
        let accepted = format!("a number that divides the {count} experts and leaves enough of them to choose from");
        return Err(config.wrong("n_group", accepted, AS_PUBLISHED));
    }
    router.scoring = Scoring::Sigmoid;
    router.normalise = config.flag("norm_topk_prob")?.unwrap_or(true);
    router.scale = config.positive("routed_scaling_factor")?.unwrap_or(2.5);
    router.groups = (groups > 1).then_some(RouterGroups { count: groups, kept });
    router.correction = true;
    Ok(router)
}

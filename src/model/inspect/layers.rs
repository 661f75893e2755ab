//! The layers of a decoder described, one line per kind of layer: an architecture at a glance.

use crate::model::spec::{
    Activation, AttentionSpec, DecoderSpec, ExpertStorage, ExpertsSpec, FeedForwardSpec, GroupedSpec, LatentSpec,
    LayerSpec, MlpSpec, NormPlacement, QkNorm, Reach, Scoring,
};

/// One line per kind of layer with the indices of its layers, such as
/// `0-27  grouped 16 heads / 8 kv x 128, qk-norm, full attention; mlp 3072 silu`.
pub fn layer_table(spec: &DecoderSpec) -> Vec<String> {
    let mut kinds: Vec<(&LayerSpec, Vec<usize>)> = Vec::new();
    for (index, layer) in spec.layers.iter().enumerate() {
        match kinds.iter_mut().find(|(kind, _)| *kind == layer) {
            Some((_, layers)) => layers.push(index),
            None => kinds.push((layer, vec![index])),
        }
    }
    let rows: Vec<(String, &LayerSpec)> =
        kinds.into_iter().map(|(layer, layers)| (describe_indices(&layers), layer)).collect();
    let width = rows.iter().map(|(indices, _)| indices.len()).max().unwrap_or(0);
    rows.iter().map(|(indices, layer)| format!("{indices:<width$}  {}", describe_layer(layer))).collect()
}

/// Ascending indices, abbreviated: `3`, `0-27`, `5, 11 .. 59 (10)`, `0-2, 4-6 .. 44-46 (36)`.
fn describe_indices(indices: &[usize]) -> String {
    let runs: Vec<&[usize]> = indices.chunk_by(|index, next| index + 1 == *next).collect();
    let shown = |run: &&[usize]| match run {
        [first, .., last] => format!("{first}-{last}"),
        one => one.iter().map(usize::to_string).collect(),
    };
    match runs.as_slice() {
        [one] => shown(one),
        [first, second, .., last] if runs.len() > 3 => {
            format!("{}, {} .. {} ({})", shown(first), shown(second), shown(last), indices.len())
        }
        few => few.iter().map(shown).collect::<Vec<_>>().join(", "),
    }
}

fn describe_layer(layer: &LayerSpec) -> String {
    let attention = match &layer.attention {
        AttentionSpec::Grouped(grouped) => describe_grouped(grouped),
        AttentionSpec::Latent(latent) => describe_latent(latent),
    };
    let feed_forward = match &layer.feed_forward {
        FeedForwardSpec::Dense(mlp) => format!("mlp {}", describe_mlp(mlp)),
        FeedForwardSpec::Experts(experts) => describe_experts(experts),
    };
    let norms = match layer.norms {
        NormPlacement::Before(_) => "",
        NormPlacement::Around(_) => "; norms before and after",
    };
    format!("{attention}; {feed_forward}{norms}")
}

fn describe_grouped(attention: &GroupedSpec) -> String {
    let mut text = format!("grouped {} heads / {} kv x {}", attention.heads, attention.kv_heads, attention.head_dim);
    if attention.fused_qkv {
        text.push_str(", fused qkv");
    }
    match (attention.qkv_bias, attention.output_bias) {
        (true, true) => text.push_str(", bias"),
        (true, false) => text.push_str(", qkv bias"),
        (false, true) => text.push_str(", output bias"),
        (false, false) => {}
    }
    match attention.qk_norm {
        QkNorm::None => {}
        QkNorm::BeforeRope(_) => text.push_str(", qk-norm"),
        QkNorm::AfterRope { .. } => text.push_str(", qk-norm after rope"),
    }
    if attention.sinks {
        text.push_str(", sinks");
    }
    match &attention.rope {
        None => text.push_str(", no rope"),
        Some(rope) if 2 * rope.inv_freq.len() < attention.head_dim => {
            text.push_str(&format!(", rope on {}", 2 * rope.inv_freq.len()));
        }
        Some(_) => {}
    }
    if attention.temperature.is_some() {
        text.push_str(", temperature");
    }
    match attention.reach {
        Reach::Full => text.push_str(", full attention"),
        Reach::Window(window) => text.push_str(&format!(", sliding window {window}")),
        Reach::Chunk(chunk) => text.push_str(&format!(", chunked attention {chunk}")),
    }
    text
}

fn describe_latent(attention: &LatentSpec) -> String {
    let query = attention.query_rank.map_or("none".to_owned(), |rank| rank.to_string());
    let bias = if attention.bias { ", bias" } else { "" };
    format!(
        "latent {} heads x {}+{} (values {}), query rank {query}, kv rank {}{bias}, full attention",
        attention.heads, attention.nope_dim, attention.rope_dim, attention.value_dim, attention.kv_rank
    )
}

fn describe_mlp(mlp: &MlpSpec) -> String {
    let activation = match mlp.activation {
        Activation::Silu => "silu".to_owned(),
        Activation::GeluTanh => "gelu".to_owned(),
        Activation::ClampedSwish { limit, .. } => format!("swish clamped at {limit}"),
    };
    let fused = if mlp.fused_gate_up { ", fused gate-up" } else { "" };
    let bias = if mlp.bias { ", bias" } else { "" };
    format!("{} {activation}{fused}{bias}", mlp.intermediate)
}

fn describe_experts(experts: &ExpertsSpec) -> String {
    let router = &experts.router;
    let scoring = match router.scoring {
        Scoring::Softmax => "softmax",
        Scoring::SoftmaxOfChosen => "softmax over the chosen",
        Scoring::Sigmoid => "sigmoid",
    };
    let groups =
        router.groups.map_or(String::new(), |groups| format!(" in {} of {} groups", groups.kept, groups.count));
    let stacked = if experts.storage == ExpertStorage::Separate { "" } else { ", stacked" };
    let shared = experts.shared.map_or(String::new(), |shared| format!(" + shared {}", shared.intermediate));
    let (count, chosen) = (experts.count, router.chosen);
    format!("{chosen} of {count} experts {}{stacked} ({scoring}{groups}){shared}", describe_mlp(&experts.expert))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::families;

    #[test]
    fn equal_layers_are_one_row_wherever_they_are() {
        let mut spec = families::tests::spec_of("mistral_sw");
        let mut full = spec.layers[0].clone();
        if let AttentionSpec::Grouped(attention) = &mut full.attention {
            attention.reach = Reach::Full;
        }
        spec.layers.extend([full, spec.layers[0].clone()]);
        let rows = layer_table(&spec);
        assert_eq!(rows.len(), 2);
        assert!(rows[0].starts_with("0-1, 3  ") && rows[0].contains("window 8"), "{rows:?}");
        assert!(rows[1].starts_with("2  ") && rows[1].contains("full attention"), "{rows:?}");
        assert_eq!(describe_indices(&[5, 11, 17, 23]), "5, 11 .. 23 (4)");
        assert_eq!(describe_indices(&[0, 1, 3, 4, 6, 7, 9, 10]), "0-1, 3-4 .. 9-10 (8)");
    }
}

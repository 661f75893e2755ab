//! Tables that layers share: each distinct rotary embedding, reach and temperature of a decoder, once.
//!
//! Tables and masks are made per micro-batch for each of them; a layer names its own by index.

use super::spec::{AttentionSpec, DecoderSpec, Reach, RopeSpec, TemperatureSpec};

/// The distinct position rules of a decoder.
#[derive(Debug, Clone, Default)]
pub(crate) struct PositionRules {
    pub(crate) ropes: Vec<RopeSpec>,
    pub(crate) reaches: Vec<Reach>,
    pub(crate) temperatures: Vec<TemperatureSpec>,
}

impl PositionRules {
    /// The tables of all layers of `spec`.
    pub(crate) fn of(spec: &DecoderSpec) -> Self {
        let mut rules = Self::default();
        for layer in &spec.layers {
            add(&mut rules.reaches, &layer.attention.reach());
            layer.attention.rope().into_iter().for_each(|rope| add(&mut rules.ropes, rope));
            if let AttentionSpec::Grouped(grouped) = &layer.attention {
                grouped.temperature.iter().for_each(|temperature| add(&mut rules.temperatures, temperature));
            }
        }
        rules
    }

    pub(crate) fn rope(&self, rope: &RopeSpec) -> usize {
        place(&self.ropes, rope)
    }

    pub(crate) fn reach(&self, reach: Reach) -> usize {
        place(&self.reaches, &reach)
    }

    pub(crate) fn temperature(&self, temperature: &TemperatureSpec) -> usize {
        place(&self.temperatures, temperature)
    }
}

fn add<T: PartialEq + Clone>(list: &mut Vec<T>, item: &T) {
    if !list.contains(item) {
        list.push(item.clone());
    }
}

fn place<T: PartialEq>(list: &[T], item: &T) -> usize {
    list.iter().position(|known| known == item).expect("the rules were made from the same specification")
}

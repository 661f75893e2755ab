//! A number in JSON as the shortest text that means exactly it; readers of JSON numbers may be off by the last bit.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Number(#[serde(with = "super")] f64);

    #[test]
    fn a_number_comes_back_to_the_last_bit() {
        for value in [0.1 + 0.2, 1.0 / 3.0, 2.2250738585072014e-308, 1.7976931348623157e308, 0.4377812345678901, -0.0] {
            let text = serde_json::to_string(&Number(value)).unwrap();
            let back: Number = serde_json::from_str(&text).unwrap();
            assert_eq!(back.0.to_bits(), value.to_bits(), "{text}");
        }
    }
}

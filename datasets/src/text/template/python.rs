//! Values as Python writes them, and Python's reading of numbers.

use std::fmt;

use minijinja::Value;

/// A float in Python's notation: exponents below 1e-4 and from 1e16 on, of two digits at least.
pub(super) fn python_float(float: f64) -> String {
    let magnitude = float.abs();
    if float.is_finite() && magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let scientific = format!("{float:e}");
        return match scientific.split_once('e') {
            Some((digits, exponent)) => {
                let (sign, power) = match exponent.strip_prefix('-') {
                    Some(power) => ('-', power),
                    None => ('+', exponent),
                };
                format!("{digits}e{sign}{power:0>2}")
            }
            None => scientific,
        };
    }
    match float {
        float if float.is_nan() => "nan".to_owned(),
        float => format!("{float:?}"),
    }
}

/// The number of a float; `None` for any other value.
pub(super) fn as_float(value: &Value) -> Option<f64> {
    let is_float = value.is_number() && !value.is_integer();
    if is_float { f64::try_from(value.clone()).ok() } else { None }
}

/// A value as an item of a list or a map is written.
pub(super) struct Repr<'a>(pub(super) &'a Value);

impl fmt::Debug for Repr<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match as_float(self.0) {
            Some(float) => formatter.write_str(&python_float(float)),
            None if self.0.is_undefined() => formatter.write_str("Undefined"),
            None => fmt::Debug::fmt(self.0, formatter),
        }
    }
}

/// A whole number as Python's `int` reads it in `base`; `None` if it does not, or has more than 128 bits.
pub(super) fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_lowercase();
    let prefixed = [(16, "0x"), (8, "0o"), (2, "0b")].into_iter().find_map(|(of, prefix)| {
        lower.strip_prefix(prefix).filter(|_| base == of || base == 0).map(|digits| (of, digits.to_owned()))
    });
    let (base, digits) = prefixed.unwrap_or((if base == 0 { 10 } else { base }, lower));
    let is_well_formed = digits.split('_').all(|digits| !digits.is_empty());
    let has_sign = digits.starts_with(['+', '-']);
    if !is_well_formed || has_sign || !(2..=36).contains(&base) {
        return None;
    }
    i128::from_str_radix(&digits.replace('_', ""), base).ok().map(|number| sign * number)
}

/// A float as Python's `float` reads it.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    text.trim().replace('_', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (float, wanted) in [
            (1e16, "1e+16"),
            (9999999999999998.0, "9999999999999998.0"),
            (1e-4, "0.0001"),
            (0.00001, "1e-05"),
            (-1.5e300, "-1.5e+300"),
            (-0.0, "-0.0"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(python_float(float), wanted);
        }
    }

    #[test]
    fn numbers_are_read_as_python_reads_them() {
        assert_eq!(
            [" 42\n", "-3", "+7", "1_000"].map(|text| parse_int(text, 10)),
            [Some(42), Some(-3), Some(7), Some(1000)]
        );
        assert_eq!(["0x1f", "1f"].map(|text| parse_int(text, 16)), [Some(31), Some(31)]);
        assert_eq!(["", "x", "1__0", "3.7", "0x1f", "--1"].map(|text| parse_int(text, 10)), [None; 6]);
        assert_eq!((parse_int("0b11", 0), parse_float(" 1e3 "), parse_float("x")), (Some(3), Some(1000.0), None));
    }
}

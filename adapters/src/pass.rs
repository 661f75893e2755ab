//! The settings of one run through the layers, as every linear map in them takes them.

use crate::dropout::DropoutKey;

/// The settings of one run through the layers; by default that of evaluation, with the adapter.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pass {
    /// Names the dropout masks while training; none in evaluation.
    pub dropout: Option<DropoutKey>,
    /// On, unless the base model alone is asked for.
    pub adapter: AdapterSwitch,
}

/// The part of the linear maps' updates in a pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AdapterSwitch {
    /// They are added.
    #[default]
    On,
    /// They are left out. A weight that is trained itself has its trained value all the same.
    Off,
}

impl Pass {
    /// A run through the base model alone, without dropout.
    pub fn reference() -> Self {
        Self { dropout: None, adapter: AdapterSwitch::Off }
    }

    /// `update`, unless updates are switched off.
    pub(crate) fn active<T>(self, update: Option<&T>) -> Option<&T> {
        update.filter(|_| self.adapter == AdapterSwitch::On)
    }
}

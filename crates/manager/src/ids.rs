//! Identifiers from what there is of chance.

use rand::Rng;
use shoal_types::IdSource;

/// Random identifiers.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl IdSource for RandomIds {
    fn random(&mut self) -> [u8; 17] {
        shoal_ambient::chance().random()
    }
}

/// A random identifier that is not that of an object: a session, a subscription.
pub fn fresh() -> String {
    shoal_types::TaskId::new(&mut RandomIds).to_string()
}

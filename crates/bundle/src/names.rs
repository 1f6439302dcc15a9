//! Names and ids: which are allowed, and new ones. Pure.

use rand::Rng;
use rand::seq::IndexedRandom;

use crate::error::{Error, Result};

const MOODS: &[&str] = &[
    "agile", "amber", "brave", "bright", "brisk", "calm", "candid", "clever", "cosy", "crisp", "daring", "deft",
    "eager", "earnest", "fair", "fearless", "fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "graceful",
    "hardy", "hearty", "honest", "jolly", "keen", "kind", "lively", "lucid", "lucky", "merry", "mild", "neat",
    "nimble", "noble", "patient", "plucky", "polite", "proud", "quick", "quiet", "rapid", "ready", "robust", "silver",
    "sincere", "steady", "sunny", "swift", "tidy", "trusty", "upbeat", "vivid", "warm", "wise", "witty", "zesty",
];
const FISHES: &[&str] = &[
    "anchovy", "barbel", "bass", "bleak", "bream", "brill", "burbot", "carp", "catfish", "char", "chub", "cod", "dab",
    "dace", "dory", "eel", "flounder", "garfish", "goby", "grayling", "gudgeon", "gurnard", "haddock", "hake",
    "halibut", "herring", "ide", "lamprey", "ling", "loach", "mackerel", "minnow", "mullet", "orfe", "perch", "pike",
    "pilchard", "plaice", "pollack", "ray", "roach", "rudd", "ruffe", "salmon", "sardine", "saithe", "shad", "skate",
    "smelt", "sole", "sprat", "sturgeon", "tench", "trout", "tuna", "turbot", "vendace", "whiting", "wrasse", "zander",
];

/// A new id of a container, exec or volume: 64 hexadecimal digits.
pub fn new_id(rng: &mut impl Rng) -> String {
    loop {
        let id = hex::encode(rng.random::<[u8; 32]>());
        // a short id of digits only could be taken for a number by other programs
        if !id[..12].bytes().all(|b| b.is_ascii_digit()) {
            return id;
        }
    }
}

/// The first twelve digits of an id.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// A name for something that was given none.
pub fn random_name() -> String {
    new_name(&mut rand::rng(), 0)
}

/// A name for a container that was given none; later attempts get a number, so that one is free soon.
pub fn new_name(rng: &mut impl Rng, attempt: usize) -> String {
    let pick = |words: &[&'static str], rng: &mut _| *words.choose(rng).expect("the lists are not empty");
    let (mood, fish) = (pick(MOODS, rng), pick(FISHES, rng));
    match attempt {
        0 => format!("{mood}_{fish}"),
        _ => format!("{mood}_{fish}{}", rng.random_range(0..10u32.pow(attempt.min(9) as u32))),
    }
}

/// Whether `name` can be a container's or volume's: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub fn is_restricted_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Checks a container name, which may begin with a slash; returns it without.
pub fn check_container_name(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    if is_restricted_name(bare) {
        return Ok(bare);
    }
    Err(Error::invalid(format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")))
}

/// Checks a volume name.
pub fn check_volume_name(name: &str) -> Result<()> {
    if name.len() == 1 {
        return Err(Error::invalid("volume name is too short, names should be at least two alphanumeric characters"));
    }
    if is_restricted_name(name) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["ab", "a.b-c_d", "0x", "/web.1"] {
            assert_eq!(check_container_name(good).unwrap(), good.trim_start_matches('/'));
        }
        for bad in ["", "a", "-a", ".a", "a b", "a/b", "é1", "//ab"] {
            let error = check_container_name(bad).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("Invalid container name ({bad}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
            );
        }
        assert!(check_volume_name("data").is_ok());
        assert!(check_volume_name("../x").unwrap_err().to_string().contains("use absolute path"));
    }

    #[test]
    fn generated_names_and_ids_are_valid() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        for attempt in 0..20 {
            let name = new_name(&mut rng, attempt);
            assert!(is_restricted_name(&name), "{name}");
            let id = new_id(&mut rng);
            assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()));
        }
    }
}

//! A large image from a registry on loopback.

use std::time::Instant;

use conformance::error::{Failure, Result};
use conformance::http::encode;
use conformance::images::{Image, Layer};
use conformance::registry::{Compression, Registry};
use serde_json::json;

use super::report::{Better, Row};
use super::{Lab, Side, median};

const LAYERS: u64 = 8;
const LAYER: usize = 300_000_000 / LAYERS as usize;
const ROUNDS: usize = 5;

/// Both engines, each from a registry in its own namespace with the same storage.
///
/// # Errors
/// docker-registry does not start, or a pull fails.
pub fn measure(lab: &Lab) -> Result<Vec<Row>> {
    let image = image();
    let missing = || Failure::wrong("docker-registry is not installed");
    let store = Registry::start("bench")?.ok_or_else(missing)?;
    store.push(&image, "bench", "1", Compression::Gzip)?;
    let shoal = store.again(&lab.shoal.daemon)?.ok_or_else(missing)?;
    let docker = store.again(&lab.docker.daemon)?.ok_or_else(missing)?;
    let pull = |side: &Side| -> Result<f64> {
        let host = if std::ptr::eq(side, &lab.shoal) { &shoal.host } else { &docker.host };
        let reference = format!("{host}/bench:1");
        let start = Instant::now();
        let said = side.engine.act(&format!("/images/create?fromImage={}", encode(&reference)))?.ok()?.text();
        let took = start.elapsed().as_secs_f64();
        if said.contains("errorDetail") {
            return Err(Failure::wrong(said));
        }
        side.engine.delete(&format!("/images/{reference}?force=1"))?.ok()?;
        Ok(took)
    };
    let (own, theirs) = lab.by_turns(ROUNDS, pull)?;
    let floor = median((0..ROUNDS).map(|_| store.read_all("bench", "1")).collect::<Result<Vec<f64>>>()?);
    Ok(vec![
        Row {
            what: "pull of 300 MB in 8 layers",
            number: theirs / own,
            unit: "times as fast as dockerd",
            wanted: 1.0,
            better: Better::Higher,
        },
        Row {
            what: "the same beside reading its blobs",
            number: own / floor,
            unit: "times as long",
            wanted: 0.0,
            better: Better::Told,
        },
    ])
}

/// Half noise, half text, in files of a few sizes.
fn image() -> Image {
    let layers = (0..LAYERS).map(|layer| {
        let mut state = layer.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
        let mut bytes = Vec::with_capacity(LAYER);
        while bytes.len() < LAYER {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.extend_from_slice(&state.to_be_bytes()[..4]);
            bytes.extend_from_slice(b"text");
        }
        let files = bytes.chunks(1_000_000).enumerate();
        files
            .fold(Layer::default(), |archive, (number, file)| archive.file(&format!("l{layer}-{number}"), file, 0o644))
            .finish()
    });
    Image { reference: "bench:1".to_owned(), layers: layers.collect(), config: json!({"Cmd": ["true"]}) }
}

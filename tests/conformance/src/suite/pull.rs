//! Pulling from registries, honest and other.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cx::{Cx, text};
use crate::error::{Failure, Result};
use crate::harness::Test;
use crate::http::{Answer, encode};
use crate::images::{self, Image, Layer};
use crate::registry::{Compression, Liar, Lie, Registry};
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Engine, an_image_is_pulled_from_a_registry),
    case!(Engine, a_pull_tells_its_progress),
    case!(Engine, a_digest_names_an_image),
    case!(Engine, a_list_gives_the_image_of_this_machine),
    case!(Engine, a_list_without_this_machine_says_so),
    case!(Engine, an_unknown_repository_or_tag_is_refused),
    case!(Engine, an_unreachable_registry_is_named),
    case!(Engine, bad_pull_references_are_refused),
    case!(Engine, a_corrupt_blob_is_never_used),
    case!(Engine, a_blob_that_is_too_long_is_never_used),
    case!(Engine, a_layer_that_always_breaks_off_is_given_up),
    case!(Engine, a_layer_that_breaks_off_once_is_resumed),
    case!(Engine, a_broken_layer_is_an_error),
    case!(Engine, a_manifest_that_is_none_is_an_error),
    // Docker's own pulls wait for each other's layers
    case!(Engine, a_pull_that_stalls_keeps_nobody_waiting, since 1, 44),
    case!(Engine, a_password_is_sent_where_it_is_wanted),
    case!(Engine, two_pulls_of_one_image_at_once),
    case!(Swarm, a_service_pulls_its_image),
];

impl Cx<'_> {
    fn registry(&self) -> Result<Registry> {
        Registry::start(&self.name("r"))?.ok_or_else(|| Failure::Skipped("docker-registry is not installed".to_owned()))
    }

    /// Pulls; what the engine said, with its last word apart.
    fn pull(&self, reference: &str) -> Result<Answer> {
        self.act(&format!("/images/create?fromImage={}", encode(reference)))
    }

    /// Pulls and demands an error that contains this text, in the answer or at the end of its progress.
    fn pull_fails(&self, reference: &str, wanted: &str) -> Result<()> {
        let answer = self.pull(reference)?;
        let said = answer.text();
        let failed = answer.status >= 400 || said.contains("\"errorDetail\"");
        ensure!(failed && said.contains(wanted), "answered {} {said}", answer.status);
        self.get(&format!("/images/{reference}/json"))?.refused(404, "No such image").map(drop)
    }

    fn sample(&self, mark: &str) -> Result<Image> {
        let bulk: Vec<u8> =
            (0..600_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let layer = Layer::default()
            .file("mark", format!("{mark} {}\n", self.name("")).as_bytes(), 0o644)
            .file("bulk", &bulk, 0o644);
        self.image("sample", vec![layer.finish()])
    }

    fn works(&self, name: &str, reference: &str, mark: &str) -> Result<()> {
        same!(
            self.shell(name, "cat /mark; wc -c </bulk", json!({"Image": reference}))?,
            format!("{mark} {}\n2400000", self.name("")),
            "the pulled image's files"
        );
        self.delete(&format!("/containers/{}", self.name(name)))?.status(204).map(drop)
    }

    fn forget(&self, reference: &str) -> Result<()> {
        self.delete(&format!("/images/{reference}?force=1"))?.status(200).map(drop)
    }
}

fn an_image_is_pulled_from_a_registry(cx: &Cx<'_>) -> Result<()> {
    let registry = cx.registry()?;
    for (tag, compression) in [("plain", Compression::None), ("gzip", Compression::Gzip)] {
        let image = cx.sample(tag)?;
        registry.push(&image, "sample", tag, compression)?;
        let reference = format!("{}/sample:{tag}", registry.host);
        let said = cx.pull(&reference)?.status(200)?.text();
        ensure!(said.contains(&format!("Status: Downloaded newer image for {reference}")), "{said}");
        same!(cx.get(&format!("/images/{reference}/json"))?.json()?["Id"], image.id(), "id");
        cx.works(tag, &reference, tag)?;
        let again = cx.pull(&reference)?.status(200)?.text();
        ensure!(again.contains(&format!("Status: Image is up to date for {reference}")), "{again}");
        cx.forget(&reference)?;
    }
    Ok(())
}

fn a_pull_tells_its_progress(cx: &Cx<'_>) -> Result<()> {
    let registry = cx.registry()?;
    registry.push(&cx.sample("progress")?, "sample", "1", Compression::Gzip)?;
    let reference = format!("{}/sample:1", registry.host);
    let said = cx.pull(&reference)?.status(200)?;
    same!(said.header("content-type"), Some("application/json"), "content type");
    let lines: Vec<Value> = said.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let statuses: Vec<String> = lines.iter().map(|line| text(&line["status"])).collect();
    for wanted in ["Pulling from sample", "Pulling fs layer", "Pull complete"] {
        ensure!(statuses.iter().any(|status| status == wanted), "{wanted:?} is not among {statuses:?}");
    }
    ensure!(statuses.iter().any(|status| status.starts_with("Digest: sha256:")), "{statuses:?}");
    let counted = lines.iter().find(|line| line["status"] == "Downloading").map(|line| line["progressDetail"].clone());
    ensure!(counted.is_none_or(|detail| detail["total"].as_u64() > Some(0)), "a download without a total");
    same!(text(&lines[0]["id"]), "1", "the first line names the tag");
    cx.forget(&reference)
}

fn a_digest_names_an_image(cx: &Cx<'_>) -> Result<()> {
    let registry = cx.registry()?;
    let digest = registry.push(&cx.sample("digest")?, "sample", "1", Compression::Gzip)?;
    let reference = format!("{}/sample@{digest}", registry.host);
    cx.pull(&reference)?.status(200)?;
    let image = cx.get(&format!("/images/{reference}/json"))?.json()?;
    same!(image["RepoDigests"], json!([reference]), "digests");
    same!(image["RepoTags"], json!([]), "tags");
    cx.works("c", &reference, "digest")?;
    let wrong = format!("{}/sample@sha256:{}", registry.host, "0".repeat(64));
    cx.pull_fails(&wrong, "not found").or_else(|_| cx.pull_fails(&wrong, "unknown"))?;
    cx.forget(&reference)
}

/// The architecture of this machine, as images name it, and another one.
fn architectures() -> (&'static str, &'static str) {
    if cfg!(target_arch = "aarch64") { ("arm64", "amd64") } else { ("amd64", "arm64") }
}

fn a_list_gives_the_image_of_this_machine(cx: &Cx<'_>) -> Result<()> {
    let registry = cx.registry()?;
    let (own, other) = architectures();
    let mine = registry.push(&cx.sample("mine")?, "sample", "mine", Compression::Gzip)?;
    let theirs = registry.push(&cx.sample("theirs")?, "sample", "theirs", Compression::Gzip)?;
    let size = 1000;
    registry.push_list("sample", "list", &[(other, &theirs, size), (own, &mine, size)])?;
    let reference = format!("{}/sample:list", registry.host);
    cx.pull(&reference)?.status(200)?;
    cx.works("c", &reference, "mine")?;
    cx.forget(&reference)
}

fn a_list_without_this_machine_says_so(cx: &Cx<'_>) -> Result<()> {
    let registry = cx.registry()?;
    let (_, other) = architectures();
    let theirs = registry.push(&cx.sample("theirs")?, "sample", "theirs", Compression::Gzip)?;
    registry.push_list("sample", "list", &[(other, &theirs, 1000)])?;
    cx.pull_fails(&format!("{}/sample:list", registry.host), "no matching manifest for linux/")
}

fn an_unknown_repository_or_tag_is_refused(cx: &Cx<'_>) -> Result<()> {
    let registry = cx.registry()?;
    registry.push(&cx.sample("x")?, "sample", "1", Compression::Gzip)?;
    for reference in [format!("{}/sample:nosuchtag", registry.host), format!("{}/nosuchrepository:1", registry.host)] {
        cx.pull_fails(&reference, "manifest")?;
    }
    Ok(())
}

fn an_unreachable_registry_is_named(cx: &Cx<'_>) -> Result<()> {
    cx.pull_fails("127.0.0.1:1/sample:1", "127.0.0.1:1")
}

fn bad_pull_references_are_refused(cx: &Cx<'_>) -> Result<()> {
    for bad in ["UPPER/Case", "a b", "127.0.0.1:1/a:b:c", "x@sha256:12"] {
        cx.pull(bad)?
            .refused(400, "invalid reference format")
            .map_err(|error| Failure::wrong(format!("{bad}: {error}")))?;
    }
    Ok(())
}

/// A registry that lies about a fresh image, and the image's name there.
fn liar(cx: &Cx<'_>, lie: Lie) -> Result<(Liar, String)> {
    let liar = Liar::start(&cx.sample(&format!("{lie:?}"))?, lie)?;
    let reference = format!("{}/liar:1", liar.host);
    Ok((liar, reference))
}

fn a_corrupt_blob_is_never_used(cx: &Cx<'_>) -> Result<()> {
    let (_liar, reference) = liar(cx, Lie::Corrupt)?;
    cx.pull_fails(&reference, "")
}

fn a_blob_that_is_too_long_is_never_used(cx: &Cx<'_>) -> Result<()> {
    let (_liar, reference) = liar(cx, Lie::TooLong)?;
    cx.pull_fails(&reference, "")
}

fn a_layer_that_always_breaks_off_is_given_up(cx: &Cx<'_>) -> Result<()> {
    let (liar, reference) = liar(cx, Lie::CutShort)?;
    cx.pull_fails(&reference, "")?;
    ensure!(liar.asked.load(Ordering::Relaxed) >= 2, "it was asked for {} times", liar.asked.load(Ordering::Relaxed));
    Ok(())
}

fn a_layer_that_breaks_off_once_is_resumed(cx: &Cx<'_>) -> Result<()> {
    let (_liar, reference) = liar(cx, Lie::CutOnce)?;
    let said = cx.pull(&reference)?.status(200)?.text();
    ensure!(!said.contains("errorDetail"), "{said}");
    cx.works("c", &reference, "CutOnce")?;
    cx.forget(&reference)
}

fn a_broken_layer_is_an_error(cx: &Cx<'_>) -> Result<()> {
    let (_liar, reference) = liar(cx, Lie::Broken)?;
    cx.pull_fails(&reference, "")
}

fn a_manifest_that_is_none_is_an_error(cx: &Cx<'_>) -> Result<()> {
    let (_liar, reference) = liar(cx, Lie::NoManifest)?;
    cx.pull_fails(&reference, "")
}

fn a_pull_that_stalls_keeps_nobody_waiting(cx: &Cx<'_>) -> Result<()> {
    let (liar, reference) = liar(cx, Lie::Stalls)?;
    let path = format!("/images/create?fromImage={}", encode(&reference));
    let stalled = cx.engine.open("POST", &path, &[], b"")?;
    cx.until("the layer is on its way", || {
        ensure!(liar.asked.load(Ordering::Relaxed) > 0, "nobody asked");
        Ok(())
    })?;
    let start = Instant::now();
    let registry = cx.registry()?;
    registry.push(&cx.sample("beside")?, "sample", "1", Compression::Gzip)?;
    let beside = format!("{}/sample:1", registry.host);
    cx.pull(&beside)?.status(200)?;
    cx.works("c", &beside, "beside")?;
    ensure!(start.elapsed() < Duration::from_secs(60), "a pull beside it took {:?}", start.elapsed());
    // the client goes away, and so does the pull
    drop(stalled);
    cx.forget(&beside)?;
    drop(liar);
    cx.get(&format!("/images/{reference}/json"))?.refused(404, "No such image").map(drop)
}

fn a_password_is_sent_where_it_is_wanted(cx: &Cx<'_>) -> Result<()> {
    let (_liar, reference) = liar(cx, Lie::WantsPassword)?;
    cx.pull_fails(&reference, "")?;
    // {"username":"user","password":"secret"}, in base64 for URLs
    let auth = "eyJ1c2VybmFtZSI6InVzZXIiLCJwYXNzd29yZCI6InNlY3JldCJ9";
    let path = format!("/v{}/images/create?fromImage={}", cx.engine.api, encode(&reference));
    let said = cx.engine.address.request("POST", &path, &[("X-Registry-Auth", auth)], b"")?.status(200)?.text();
    ensure!(!said.contains("errorDetail"), "{said}");
    cx.works("c", &reference, "WantsPassword")?;
    cx.forget(&reference)
}

fn two_pulls_of_one_image_at_once(cx: &Cx<'_>) -> Result<()> {
    let registry = cx.registry()?;
    registry.push(&cx.sample("twice")?, "sample", "1", Compression::Gzip)?;
    let reference = format!("{}/sample:1", registry.host);
    let answers: Vec<Result<Answer>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| cx.pull(&reference))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    for answer in answers {
        let said = answer?.status(200)?.text();
        ensure!(!said.contains("errorDetail"), "{said}");
    }
    cx.works("c", &reference, "twice")?;
    cx.forget(&reference)
}

fn a_service_pulls_its_image(cx: &Cx<'_>) -> Result<()> {
    let registry = cx.registry()?;
    registry.push(&images::clock_alone("3.0")?, "clock", "3.0", Compression::Gzip)?;
    let reference = format!("{}/clock:3.0", registry.host);
    let service =
        cx.service("svc", json!({"TaskTemplate": {"ContainerSpec": {"Image": reference, "Command": null}}}))?;
    cx.wait_running(&service, 1)?;
    cx.delete(&format!("/services/{service}"))?.status(200)?;
    cx.clean()?;
    cx.forget(&reference)
}

//! Images: loading, naming, removing, and layers of every kind, good and evil.

use serde_json::{Value, json};
use tar::EntryType;

use crate::cx::{Cx, array, text};
use crate::error::{Failure, Result};
use crate::harness::Test;
use crate::http::encode;
use crate::images::{self, Image, Layer};
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Engine, an_image_is_described_truly),
    case!(Engine, images_are_listed_and_filtered),
    case!(Engine, a_tag_is_another_name),
    case!(Engine, an_image_in_use_is_not_removed),
    case!(Engine, an_unknown_image_is_404),
    case!(Engine, bad_references_are_refused),
    case!(Engine, an_archive_in_oci_layout_is_loaded, since 1, 44),
    case!(Engine, a_compressed_archive_is_loaded),
    case!(Engine, what_is_no_archive_is_refused),
    case!(Engine, a_corrupt_layer_is_refused),
    case!(Engine, upper_layers_hide_lower_ones),
    case!(Engine, links_modes_owners_and_times_are_kept),
    case!(Engine, long_names_are_kept),
    case!(Engine, a_layer_cannot_write_outside_its_root),
    case!(Engine, a_layer_cannot_write_through_links),
    case!(Engine, images_share_layers),
    case!(Engine, cli_images_and_tag_and_rmi),
];

impl Cx<'_> {
    /// An image of busybox with more layers, loaded under a name of this test; the name.
    fn layered(&self, suffix: &str, layers: Vec<Vec<u8>>) -> Result<String> {
        let image = self.image(suffix, layers)?;
        self.engine.load(&image.archive())?;
        Ok(image.reference)
    }

    /// An image of busybox with more layers, under a name of this test.
    pub(super) fn image(&self, suffix: &str, layers: Vec<Vec<u8>>) -> Result<Image> {
        let mut image = images::busybox()?;
        image.layers.extend(layers);
        image.reference = format!("{}:1", self.name(suffix));
        Ok(image)
    }

    fn list_images(&self, filters: &Value) -> Result<Vec<Value>> {
        self.engine.list("/images/json", filters)
    }
}

fn an_image_is_described_truly(cx: &Cx<'_>) -> Result<()> {
    let image = images::clock("1.0")?;
    let seen = cx.get("/images/shoal/clock:1.0/json")?.json()?;
    same!(seen["Id"], image.id(), "id");
    same!(seen["RepoTags"], json!(["shoal/clock:1.0"]), "tags");
    same!(
        (text(&seen["Os"]), text(&seen["Created"])),
        ("linux".to_owned(), "2026-01-01T00:00:00Z".to_owned()),
        "system and date"
    );
    same!(seen["Config"]["Entrypoint"], json!(["clock"]), "entrypoint");
    same!(seen["Config"]["Env"], image.config["Env"], "environment");
    let layers: Vec<String> = image.layers.iter().map(|layer| images::digest(layer)).collect();
    same!(seen["RootFS"], json!({"Type": "layers", "Layers": layers}), "layers");
    ensure!(seen["Size"].as_u64() > Some(500_000), "size {}", seen["Size"]);
    let id = image.id();
    for reference in ["shoal/clock:1.0", "docker.io/shoal/clock:1.0", &id, &id["sha256:".len()..][..12]] {
        same!(cx.get(&format!("/images/{reference}/json"))?.json()?["Id"], id, "found by {reference}");
    }
    Ok(())
}

fn images_are_listed_and_filtered(cx: &Cx<'_>) -> Result<()> {
    let name = cx.layered("i", vec![Layer::default().file("x", b"x", 0o644).finish()])?;
    let found = cx.list_images(&json!({"reference": [name]}))?;
    same!(found.len(), 1, "images of that name");
    let entry = &found[0];
    same!(entry["RepoTags"], json!([name]), "tags");
    ensure!(text(&entry["Id"]).starts_with("sha256:") && entry["Size"].as_u64() > Some(500_000), "{entry}");
    same!(entry["Created"], 1_767_225_600, "creation");
    same!(cx.list_images(&json!({"reference": [format!("{}*", cx.name(""))]}))?.len(), 1, "images of that pattern");
    same!(cx.list_images(&json!({"reference": ["nosuchimage"]}))?.len(), 0, "images of no name");
    same!(
        cx.list_images(&json!({"dangling": ["true"], "reference": [name]}))?.len(),
        0,
        "dangling images of that name"
    );
    same!(cx.list_images(&json!({"label": ["nosuchlabel"]}))?.len(), 0, "images with a label");
    Ok(())
}

fn a_tag_is_another_name(cx: &Cx<'_>) -> Result<()> {
    let name = cx.layered("i", vec![Layer::default().file("x", name_bytes(cx).as_bytes(), 0o644).finish()])?;
    let other = cx.name("other");
    cx.act(&format!("/images/{name}/tag?repo={other}&tag=2"))?.status(201)?;
    let id = text(&cx.get(&format!("/images/{other}:2/json"))?.json()?["Id"]);
    let untagged = cx.delete(&format!("/images/{name}"))?.status(200)?.json()?;
    same!(untagged, json!([{"Untagged": name}]), "removing one of two names");
    same!(cx.get(&format!("/images/{other}:2/json"))?.json()?["Id"], id, "the other name's image");
    let removed = cx.delete(&format!("/images/{other}:2"))?.status(200)?.json()?;
    let removed = array(&removed);
    same!(removed[0], json!({"Untagged": format!("{other}:2")}), "removing the last name");
    ensure!(removed.contains(&json!({"Deleted": id})), "{removed:?}");
    cx.get(&format!("/images/{id}/json"))?.refused(404, "No such image").map(drop)
}

/// Something that no other test has in its layer.
fn name_bytes(cx: &Cx<'_>) -> String {
    cx.name("content")
}

fn an_image_in_use_is_not_removed(cx: &Cx<'_>) -> Result<()> {
    let name = cx.layered("i", vec![Layer::default().file("x", name_bytes(cx).as_bytes(), 0o644).finish()])?;
    let id = cx.run("c", json!({"Image": name, "Cmd": ["sleep", "1000"]}))?;
    let refusal = cx.delete(&format!("/images/{name}"))?.status(409)?;
    ensure!(
        refusal.text().contains("unable to remove repository reference") && refusal.text().contains(&id[..12]),
        "{}",
        refusal.text()
    );
    cx.delete(&format!("/containers/{id}?force=1"))?.status(204)?;
    cx.delete(&format!("/images/{name}"))?.status(200).map(drop)
}

fn an_unknown_image_is_404(cx: &Cx<'_>) -> Result<()> {
    cx.get("/images/nosuchimage/json")?.refused(404, "No such image: nosuchimage:latest")?;
    cx.delete("/images/nosuchimage")?.refused(404, "No such image: nosuchimage:latest")?;
    cx.act("/images/nosuchimage/tag?repo=x&tag=y")?.refused(404, "No such image: nosuchimage:latest").map(drop)
}

fn bad_references_are_refused(cx: &Cx<'_>) -> Result<()> {
    for bad in ["UPPER", "a b", "-x", "a//b"] {
        let answer = cx.act(&format!("/images/busybox/tag?repo={}&tag=1", encode(bad)))?;
        ensure!(
            [400, 500].contains(&answer.status) && answer.text().contains("invalid reference format"),
            "{bad}: {} {}",
            answer.status,
            answer.text()
        );
    }
    let answer = cx.act(&format!("/images/busybox/tag?repo=x&tag={}", encode("a/b")))?;
    ensure!(
        [400, 500].contains(&answer.status) && answer.text().contains("invalid tag format"),
        "{} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}

fn an_archive_in_oci_layout_is_loaded(cx: &Cx<'_>) -> Result<()> {
    let image = cx.image("i", vec![Layer::default().file("mark", b"from oci\n", 0o644).finish()])?;
    let said = cx.engine.load(&image.oci_archive())?;
    ensure!(said.contains(&format!("Loaded image: {}", image.reference)), "{said}");
    same!(cx.shell("c", "cat /mark", json!({"Image": image.reference}))?, "from oci", "file of the image");
    Ok(())
}

fn a_compressed_archive_is_loaded(cx: &Cx<'_>) -> Result<()> {
    let image = cx.image("i", vec![Layer::default().file("mark", b"from gzip\n", 0o644).finish()])?;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &image.archive())?;
    let said = cx.engine.load(&encoder.finish()?)?;
    ensure!(said.contains(&format!("Loaded image: {}", image.reference)), "{said}");
    same!(cx.shell("c", "cat /mark", json!({"Image": image.reference}))?, "from gzip", "file of the image");
    Ok(())
}

fn what_is_no_archive_is_refused(cx: &Cx<'_>) -> Result<()> {
    let archive = cx.image("i", vec![])?.archive();
    let half = archive.len() / 2;
    for (what, bytes) in [
        ("text", &b"this is no archive"[..]),
        ("an empty archive", &[0; 1024][..]),
        ("half an archive", &archive[..half]),
    ] {
        if let Ok(said) = cx.engine.load(bytes) {
            ensure!(!said.contains("Loaded image"), "{what} was loaded: {said}");
        }
    }
    cx.get(&format!("/images/{}:1/json", cx.name("i")))?.refused(404, "No such image").map(drop)
}

fn a_corrupt_layer_is_refused(cx: &Cx<'_>) -> Result<()> {
    let image = cx.image("i", vec![Layer::default().file("mark", &[b'a'; 4096], 0o644).finish()])?;
    let mut archive = image.archive();
    let place = archive
        .windows(64)
        .rposition(|window| window == [b'a'; 64])
        .ok_or_else(|| Failure::wrong("the layer is not in its archive"))?;
    archive[place] = b'b';
    ensure!(cx.engine.load(&archive).is_err(), "a layer with another digest was loaded");
    cx.get(&format!("/images/{}/json", image.reference))?.refused(404, "No such image").map(drop)
}

fn upper_layers_hide_lower_ones(cx: &Cx<'_>) -> Result<()> {
    let lower = Layer::default()
        .directory("d", 0o755)
        .file("d/old", b"1", 0o644)
        .directory("e", 0o755)
        .file("e/old", b"1", 0o644)
        .file("f", b"1", 0o644);
    let upper = Layer::default()
        .directory("d", 0o755)
        .file("d/.wh..wh..opq", b"", 0o644)
        .file("d/new", b"2", 0o644)
        .file("e/.wh.old", b"", 0o644)
        .file("f", b"2", 0o644);
    let top = Layer::default().file("e/third", b"3", 0o644).file(".wh.f", b"", 0o644);
    let name = cx.layered("i", vec![lower.finish(), upper.finish(), top.finish()])?;
    let seen = cx.shell("c", "ls /d /e; test ! -e /f && echo /f is gone", json!({"Image": name}))?;
    same!(seen, "/d:\nnew\n\n/e:\nthird\n/f is gone", "what is left");
    Ok(())
}

fn links_modes_owners_and_times_are_kept(cx: &Cx<'_>) -> Result<()> {
    let layer = Layer::default()
        .directory("t", 0o1777)
        .file("t/file", b"content", 0o4755)
        .entry(EntryType::Link, "t/hard", "t/file", b"", 0o4755)
        .link("t/soft", "file")
        .link("t/absolute", "/t/file")
        .entry(EntryType::Fifo, "t/pipe", "", b"", 0o600)
        .finish();
    let name = cx.layered("i", vec![layer])?;
    let line = "cd /t; stat -c '%n %a %F %h' . file hard soft absolute pipe; cat absolute; stat -c %i file hard | uniq | wc -l";
    let seen = cx.shell("c", line, json!({"Image": name}))?;
    let wanted = ". 1777 directory 2\nfile 4755 regular file 2\nhard 4755 regular file 2\nsoft 777 symbolic link 1\nabsolute 777 symbolic link 1\npipe 600 fifo 1\ncontent1";
    same!(seen, wanted, "files");
    Ok(())
}

fn long_names_are_kept(cx: &Cx<'_>) -> Result<()> {
    let long = format!("deep/{}/{}", "a".repeat(120), "b".repeat(200));
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    builder.append_data(&mut header, &long, &b"long"[..])?;
    let name = cx.layered("i", vec![builder.into_inner()?])?;
    same!(cx.shell("c", &format!("cat /{long}"), json!({"Image": name}))?, "long", "content");
    Ok(())
}

/// Loads an evil layer: it is refused, or what it wanted to write is inside.
fn harmless(cx: &Cx<'_>, name: &str, layer: Layer, outside: &std::path::Path) -> Result<()> {
    let image = cx.image(name, vec![layer.finish()])?;
    let loaded = cx.engine.load(&image.archive());
    if loaded.is_ok() {
        cx.shell(&format!("c{name}"), "true", json!({"Image": image.reference}))?;
    }
    ensure!(!outside.exists(), "{name}: {} was written", outside.display());
    same!(cx.engine.address.request("GET", "/_ping", &[], b"")?.status, 200, "status of a ping");
    Ok(())
}

fn a_layer_cannot_write_outside_its_root(cx: &Cx<'_>) -> Result<()> {
    let outside = std::env::temp_dir().join(cx.name("escaped"));
    let path = outside.display().to_string();
    let up = format!("{}{}", "../".repeat(20), path.trim_start_matches('/'));
    harmless(cx, "dots", Layer::default().file(&up, b"x", 0o644), &outside)?;
    harmless(cx, "inner", Layer::default().directory("a", 0o755).file(&format!("a/{up}"), b"x", 0o644), &outside)?;
    harmless(cx, "absolute", Layer::default().file(&path, b"x", 0o644), &outside)?;
    std::fs::write(&outside, "secret")?;
    let image = cx.image("hard", vec![Layer::default().entry(EntryType::Link, "leak", &up, b"", 0o644).finish()])?;
    let leaked = cx.engine.load(&image.archive()).is_ok()
        && cx.shell("leak", "cat /leak", json!({"Image": image.reference})).is_ok_and(|text| text.contains("secret"));
    std::fs::remove_file(&outside)?;
    ensure!(!leaked, "a hard link reaches outside");
    Ok(())
}

fn a_layer_cannot_write_through_links(cx: &Cx<'_>) -> Result<()> {
    let outside = std::env::temp_dir().join(cx.name("through"));
    let (directory, file) = (std::env::temp_dir().display().to_string(), cx.name("through"));
    let up = format!("{}{}", "../".repeat(20), directory.trim_start_matches('/'));
    harmless(cx, "absolute", Layer::default().link("l", &directory).file(&format!("l/{file}"), b"x", 0o644), &outside)?;
    harmless(cx, "relative", Layer::default().link("l", &up).file(&format!("l/{file}"), b"x", 0o644), &outside)?;
    harmless(
        cx,
        "twice",
        Layer::default().link("a", "b").link("b", &directory).file(&format!("a/{file}"), b"x", 0o644),
        &outside,
    )?;
    harmless(
        cx,
        "swapped",
        Layer::default().directory("d", 0o755).link("d", &directory).file(&format!("d/{file}"), b"x", 0o644),
        &outside,
    )?;
    harmless(
        cx,
        "made",
        Layer::default().link("l", &outside.display().to_string()).file("l/inner", b"x", 0o644),
        &outside,
    )?;
    std::fs::create_dir(&outside)?;
    std::fs::write(outside.join("precious"), "x")?;
    let wipe = Layer::default().link("l", &outside.display().to_string()).file("l/.wh.precious", b"", 0o644).file(
        "l/.wh..wh..opq",
        b"",
        0o644,
    );
    let image = cx.image("wipe", vec![wipe.finish()])?;
    if cx.engine.load(&image.archive()).is_ok() {
        cx.shell("wipe", "true", json!({"Image": image.reference}))?;
    }
    let kept = outside.join("precious").exists();
    std::fs::remove_dir_all(&outside)?;
    ensure!(kept, "a whiteout reached outside");
    Ok(())
}

fn images_share_layers(cx: &Cx<'_>) -> Result<()> {
    let base = Layer::default().file("big", &vec![7; 1_000_000], 0o644).finish();
    let one = cx.layered("one", vec![base.clone(), Layer::default().file("a", b"1", 0o644).finish()])?;
    let two = cx.layered("two", vec![base, Layer::default().file("a", b"2", 0o644).finish()])?;
    cx.delete(&format!("/images/{one}"))?.status(200)?;
    same!(
        cx.shell("c", "wc -c </big; cat /a", json!({"Image": two}))?,
        "1000000\n2",
        "the other's files after a removal"
    );
    Ok(())
}

fn cli_images_and_tag_and_rmi(cx: &Cx<'_>) -> Result<()> {
    let image = cx.image("i", vec![Layer::default().file("x", name_bytes(cx).as_bytes(), 0o644).finish()])?;
    let said = cx.engine.docker(&["load"], Some(&image.archive()))?.ok()?;
    same!(said, format!("Loaded image: {}", image.reference), "docker load");
    let other = format!("{}:2", cx.name("other"));
    cx.docker(&["tag", &image.reference, &other])?.ok()?;
    let mut listed: Vec<String> = cx
        .docker(&[
            "images",
            "--format",
            "{{.Repository}}:{{.Tag}}",
            "--filter",
            &format!("reference={}*", cx.name("")),
        ])?
        .ok()?
        .lines()
        .map(str::to_owned)
        .collect();
    listed.sort();
    same!(listed, [image.reference.clone(), other.clone()], "docker images");
    let said = cx.docker(&["rmi", &image.reference, &other])?.ok()?;
    ensure!(said.contains(&format!("Untagged: {}", image.reference)) && said.contains("Deleted: sha256:"), "{said}");
    let gone = cx.docker(&["inspect", "--type", "image", &other])?.ended(1)?;
    ensure!(gone.err.to_lowercase().contains("no such image"), "{}", gone.err);
    Ok(())
}

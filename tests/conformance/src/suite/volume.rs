//! Volumes of the driver `local`.

use serde_json::json;

use crate::cx::{Cx, text};
use crate::error::Result;
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Engine, a_volume_has_the_documented_fields),
    case!(Engine, a_volume_outlives_its_containers),
    case!(Engine, a_volume_in_use_cannot_be_removed),
    case!(Engine, an_empty_volume_takes_the_images_files),
    case!(Engine, anonymous_volumes_go_with_their_container),
    case!(Engine, volume_lists_are_filtered),
    case!(Engine, impossible_volumes_are_refused),
    case!(Engine, containers_share_a_volume),
];

fn a_volume_has_the_documented_fields(cx: &Cx<'_>) -> Result<()> {
    let name = cx.name("v");
    let made = cx.post("/volumes/create", &json!({"Name": name, "Labels": {"a": "b"}}))?.status(201)?.json()?;
    let seen = cx.get(&format!("/volumes/{name}"))?.json()?;
    for volume in [&made, &seen] {
        same!(
            (text(&volume["Name"]), text(&volume["Driver"]), text(&volume["Scope"])),
            (name.clone(), "local".to_owned(), "local".to_owned()),
            "volume"
        );
        same!(volume["Labels"], json!({"a": "b"}), "labels");
        ensure!(text(&volume["Mountpoint"]).ends_with("/_data") && !text(&volume["CreatedAt"]).is_empty(), "{volume}");
    }
    ensure!(std::path::Path::new(&text(&seen["Mountpoint"])).is_dir(), "{} is no directory", seen["Mountpoint"]);
    cx.post("/volumes/create", &json!({"Name": name}))?.status(201)?;
    cx.delete(&format!("/volumes/{name}"))?.status(204)?;
    cx.get(&format!("/volumes/{name}"))?.refused(404, "no such volume")?;
    cx.delete(&format!("/volumes/{name}"))?.refused(404, "no such volume").map(drop)
}

fn a_volume_outlives_its_containers(cx: &Cx<'_>) -> Result<()> {
    let binds = json!({"HostConfig": {"Binds": [format!("{}:/data", cx.name("v"))]}});
    cx.shell("a", "echo kept >/data/file", binds.clone())?;
    cx.delete(&format!("/containers/{}?v=1", cx.name("a")))?.status(204)?;
    same!(cx.shell("b", "cat /data/file", binds)?, "kept", "content");
    let mount = cx.inspect(&cx.name("b"))?["Mounts"][0].clone();
    same!(
        (text(&mount["Type"]), text(&mount["Name"]), text(&mount["Destination"])),
        ("volume".to_owned(), cx.name("v"), "/data".to_owned()),
        "mount"
    );
    Ok(())
}

fn a_volume_in_use_cannot_be_removed(cx: &Cx<'_>) -> Result<()> {
    let name = cx.name("v");
    let id = cx.create("c", json!({"HostConfig": {"Binds": [format!("{name}:/data")]}}))?;
    let wanted = format!("volume is in use - [{id}]");
    cx.delete(&format!("/volumes/{name}"))?.refused(409, &wanted)?;
    cx.delete(&format!("/containers/{id}"))?.status(204)?;
    cx.delete(&format!("/volumes/{name}"))?.status(204).map(drop)
}

fn an_empty_volume_takes_the_images_files(cx: &Cx<'_>) -> Result<()> {
    let binds = |options: &str| json!({"HostConfig": {"Binds": [format!("{}:/etc/{options}", cx.name(&format!("v{}", options.len())))]}});
    let seen = cx.shell("a", "ls /etc | grep -c -E '^(passwd|group)$'; stat -c %a /etc", binds(""))?;
    same!(seen, "2\n755", "files of the image, and the mode of the directory");
    let (code, _) = cx.run_to_end("b", json!({"Cmd": ["test", "-e", "/etc/passwd"], "HostConfig": {"Binds": [format!("{}:/etc:nocopy", cx.name("plain"))]}}))?;
    same!(code, 1, "whether a volume without copying has them");
    Ok(())
}

fn anonymous_volumes_go_with_their_container(cx: &Cx<'_>) -> Result<()> {
    let id = cx.run("c", json!({"Cmd": ["touch", "/data/x"], "Volumes": {"/data": {}}}))?;
    cx.wait(&id)?;
    let name = text(&cx.inspect(&id)?["Mounts"][0]["Name"]);
    ensure!(name.len() == 64, "name {name:?}");
    cx.get(&format!("/volumes/{name}"))?.ok()?;
    cx.delete(&format!("/containers/{id}?v=1"))?.status(204)?;
    cx.get(&format!("/volumes/{name}"))?.refused(404, "no such volume")?;
    let kept = cx.run("d", json!({"Cmd": ["true"], "Volumes": {"/data": {}}}))?;
    cx.wait(&kept)?;
    let name = text(&cx.inspect(&kept)?["Mounts"][0]["Name"]);
    cx.delete(&format!("/containers/{kept}"))?.status(204)?;
    cx.delete(&format!("/volumes/{name}"))?.status(204).map(drop)
}

fn volume_lists_are_filtered(cx: &Cx<'_>) -> Result<()> {
    let (used, idle) = (cx.name("used"), cx.name("idle"));
    cx.post("/volumes/create", &json!({"Name": idle, "Labels": {"kind": cx.name("x")}}))?.status(201)?;
    cx.create("c", json!({"HostConfig": {"Binds": [format!("{used}:/data")]}}))?;
    let select = |filters: serde_json::Value| -> Result<String> {
        let query = crate::http::encode(&filters.to_string());
        let volumes = cx.get(&format!("/volumes?filters={query}"))?.json()?["Volumes"].clone();
        let names = volumes.as_array().into_iter().flatten().map(|volume| text(&volume["Name"]));
        let mut mine: Vec<String> =
            names.filter_map(|name| name.strip_prefix(&cx.name("")).map(str::to_owned)).collect();
        mine.sort();
        Ok(mine.join(" "))
    };
    same!(select(json!({"name": [cx.name("")]}))?, "idle used", "by part of the name");
    same!(select(json!({"label": [format!("kind={}", cx.name("x"))]}))?, "idle", "by label");
    same!(select(json!({"dangling": ["true"]}))?, "idle", "that nobody uses");
    same!(select(json!({"dangling": ["false"]}))?, "used", "that somebody uses");
    same!(select(json!({"driver": ["nosuchdriver"]}))?, "", "by driver");
    Ok(())
}

fn impossible_volumes_are_refused(cx: &Cx<'_>) -> Result<()> {
    for bad in ["a/b", "-a", "ä b", ".", ".."] {
        let answer = cx.post("/volumes/create", &json!({"Name": bad}))?;
        ensure!(
            answer.status == 400 && answer.text().contains("olume name"),
            "{bad:?}: {} {}",
            answer.status,
            answer.text()
        );
    }
    let answer = cx.post("/volumes/create", &json!({"Name": cx.name("v"), "Driver": "nosuchdriver"}))?;
    ensure!(answer.status >= 400 && answer.text().contains("nosuchdriver"), "{} {}", answer.status, answer.text());
    let answer = cx.post("/volumes/create", &json!({"Name": cx.name("v"), "DriverOpts": {"nosuchoption": "x"}}))?;
    let text = answer.text();
    ensure!(
        answer.status == 400 && text.contains("invalid option") || answer.status == 501,
        "{} {text}",
        answer.status
    );
    Ok(())
}

fn containers_share_a_volume(cx: &Cx<'_>) -> Result<()> {
    let volume = cx.name("v");
    let writer =
        cx.run("w", json!({"Cmd": ["sleep", "1000"], "HostConfig": {"Binds": [format!("{volume}:/data")]}}))?;
    let reader =
        cx.run("r", json!({"Cmd": ["sleep", "1000"], "HostConfig": {"Binds": [format!("{volume}:/other:ro")]}}))?;
    cx.exec(&writer, &["sh", "-c", "echo shared >/data/x"], json!({}))?;
    same!(cx.exec(&reader, &["cat", "/other/x"], json!({}))?.1.out, "shared\n", "seen by the other");
    same!(cx.exec(&reader, &["touch", "/other/y"], json!({}))?.0, 1, "writing to a read-only mount");
    Ok(())
}

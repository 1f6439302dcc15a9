//! Layers made by hand, good and hostile, unpacked for real (as root).

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use ::tar::{Builder, EntryType, Header};

use super::*;
use crate::digest::Digest;

struct Lab {
    temp: tempfile::TempDir,
    layout: Layout,
}

impl Lab {
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("temp dir");
        let layout = Layout::ensure(
            &temp.path().join("store"),
            &temp.path().join("store/mounts"),
            crate::trash::Janitor::new().0,
        )
        .expect("layout");
        fs::create_dir(temp.path().join("root")).expect("root");
        fs::write(temp.path().join("outside"), "untouched").expect("outside");
        Self { temp, layout }
    }

    fn root(&self) -> std::path::PathBuf {
        self.temp.path().join("root")
    }

    fn unpack(&self, layer: &[u8]) -> Result<Unpacked, ExtractError> {
        let unpacked = unpack(layer, &self.root(), &self.layout);
        assert_eq!(fs::read_to_string(self.temp.path().join("outside")).expect("there"), "untouched");
        unpacked
    }

    fn refuse(&self, layer: &[u8]) -> String {
        let error = self.unpack(layer).expect_err("refused");
        let beside: Vec<_> =
            fs::read_dir(self.temp.path()).expect("list").map(|entry| entry.expect("entry").file_name()).collect();
        assert_eq!(beside.len(), 3, "something new beside the root: {beside:?}");
        error.to_string()
    }
}

/// Builds a layer; names are written as they are, however wrong.
#[derive(Default)]
struct Layer(Vec<(Header, Vec<u8>)>);

impl Layer {
    fn entry(mut self, kind: EntryType, name: &str, link: &str, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_size(data.len() as u64);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_cksum();
        self.0.push((header, data.to_vec()));
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Header)) -> Self {
        let header = &mut self.0.last_mut().expect("an entry").0;
        change(header);
        header.set_cksum();
        self
    }

    fn dir(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", b"")
    }

    fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, "", data)
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, b"")
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (1..)
                .map(|digits| rest + digits)
                .find(|length| length.to_string().len() + rest == *length)
                .expect("fits");
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(EntryType::XHeader, "pax", "", &data)
    }

    fn bytes(self) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (header, data) in self.0 {
            builder.append(&header, data.as_slice()).expect("in memory");
        }
        builder.into_inner().expect("in memory")
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("in memory");
    encoder.finish().expect("in memory")
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

fn is_opaque(path: &Path) -> bool {
    xattr::get(path, OPAQUE).expect("readable").as_deref() == Some(b"y")
}

#[test]
fn plain_gzip_and_zstd_layers_unpack_to_the_same_and_have_the_same_diff_id() {
    let layer = Layer::default().dir("etc").file("etc/hostname", b"box\n").bytes();
    let zstd = zstd::encode_all(layer.as_slice(), 3).expect("in memory");
    for compressed in [layer.clone(), gzip(&layer), zstd] {
        let lab = Lab::new();
        let unpacked = lab.unpack(&compressed).expect("unpacks");
        assert_eq!(unpacked.diff, Digest::of(&layer));
        assert_eq!(unpacked.size, 4);
        assert_eq!(read(lab.root().join("etc/hostname")), "box\n");
    }
    let error = Lab::new().unpack(b"BZh91AY").expect_err("refused").to_string();
    assert_eq!(error, "failed to read layer: bzip2 compression is not supported");
}

#[test]
fn attributes_of_every_kind_of_entry_are_kept() {
    let lab = Lab::new();
    let capability = [1, 0, 0, 2, 10, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = Layer::default()
        .dir("./")
        .with(|header| header.set_mode(0o750))
        .dir("d")
        .with(|header| header.set_mode(0o1777))
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("mtime", b"1234.5"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/x"),
        ])
        .file("d/tool", b"#!")
        .with(|header| {
            header.set_mode(0o4755);
            header.set_uid(1000);
            header.set_gid(100_000);
        })
        .hard_link("d/again", "d/tool")
        .symlink("d/link", "/no/where")
        .with(|header| header.set_uid(7))
        .entry(EntryType::Char, "d/null", "", b"")
        .with(|header| {
            header.set_device_major(1).expect("gnu");
            header.set_device_minor(3).expect("gnu");
            header.set_mode(0o666);
        })
        .entry(EntryType::Fifo, "d/fifo", "", b"")
        .bytes();
    lab.unpack(&layer).expect("unpacks");
    let at = |name: &str| lab.root().join(name);
    let look = |name: &str| fs::symlink_metadata(at(name)).expect("there");

    assert_eq!(look("").mode() & 0o7777, 0o750);
    let tool = look("d/tool");
    assert_eq!((tool.mode() & 0o7777, tool.uid(), tool.gid(), tool.nlink()), (0o4755, 1000, 100_000, 2));
    assert_eq!((tool.mtime(), tool.mtime_nsec()), (1234, 500_000_000));
    assert_eq!(tool.ino(), look("d/again").ino());
    assert_eq!(xattr::get(at("d/tool"), "security.capability").expect("readable").as_deref(), Some(&capability[..]));
    assert_eq!(
        xattr::get(at("d/tool"), "trusted.overlay.redirect").expect("readable"),
        None,
        "overlayfs is not for images to steer"
    );
    assert_eq!(fs::read_link(at("d/link")).expect("a link").as_os_str(), "/no/where");
    assert_eq!((look("d/link").uid(), look("d/link").mtime()), (7, 1_000_000));
    assert!(look("d/null").file_type().is_char_device());
    assert_eq!((look("d/null").rdev(), look("d/null").mode() & 0o777), (nix::sys::stat::makedev(1, 3), 0o666));
    assert!(look("d/fifo").file_type().is_fifo());
    assert_eq!(
        (look("d").mode() & 0o7777, look("d").mtime()),
        (0o1777, 1_000_000),
        "files made in it did not change its time"
    );
}

#[test]
fn whiteouts_become_overlayfs_whiteouts_and_spare_the_layers_own_files() {
    let lab = Lab::new();
    let layer = Layer::default()
        .dir("a")
        .file("a/.wh.gone", b"")
        .dir("b")
        .file("b/.wh..wh..opq", b"")
        .file("b/new", b"new")
        .file(".wh..wh.plnk", b"")
        .dir("c")
        .file("c/own", b"own")
        .file(".wh.c", b"")
        .file("own", b"own")
        .file(".wh.own", b"")
        .file(".wh.d", b"")
        .dir("d")
        .bytes();
    lab.unpack(&layer).expect("unpacks");
    let gone = fs::symlink_metadata(lab.root().join("a/gone")).expect("there");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert!(is_opaque(&lab.root().join("b")) && !is_opaque(&lab.root().join("a")));
    assert!(is_opaque(&lab.root().join("c")) && is_opaque(&lab.root().join("d")), "hidden below, made anew here");
    assert_eq!(read(lab.root().join("c/own")) + &read(lab.root().join("own")), "ownown");
    assert!(!lab.root().join(".wh..wh.plnk").exists() && !lab.root().join(".wh.own").exists());
}

#[test]
fn names_that_climb_out_are_refused() {
    for name in ["../outside", "a/../../outside", "..", "/../outside", "./../outside"] {
        let error = Lab::new().refuse(&Layer::default().file(name, b"x").bytes());
        assert_eq!(error, format!("layer entry {name:?} is outside of its root: refused"));
    }
    for name in [".wh...", "a/.wh...", ".wh..", ".wh."] {
        let error = Lab::new().refuse(&Layer::default().dir("a").file(name, b"").bytes());
        assert!(error.ends_with("is outside of its root: refused"), "{error}");
    }
    let error = Lab::new()
        .refuse(&Layer::default().file("./", b"").with(|header| header.set_entry_type(EntryType::Symlink)).bytes());
    assert!(error.contains("names the root"), "{error}");
}

#[test]
fn absolute_names_and_links_stay_inside() {
    let lab = Lab::new();
    let outside = lab.temp.path().join("outside");
    let layer = Layer::default()
        .file("/etc/passwd", b"inside")
        .symlink("run", "/var/run")
        .dir("var/run")
        .file("run/x", b"through an absolute link")
        .symlink("var/up", "../../../../../../..")
        .file("var/up/top", b"through a climbing link")
        .symlink("file", outside.to_str().expect("text"))
        .file("file", b"replaces the link")
        .bytes();
    lab.unpack(&layer).expect("unpacks");
    assert_eq!(read(lab.root().join("etc/passwd")), "inside");
    assert_eq!(read(lab.root().join("var/run/x")), "through an absolute link");
    assert_eq!(read(lab.root().join("top")), "through a climbing link");
    assert_eq!(read(lab.root().join("file")), "replaces the link");
}

#[test]
fn writing_through_a_link_that_leads_out_is_refused() {
    let lab = Lab::new();
    let outside = lab.temp.path().to_str().expect("text").to_owned();
    let error = lab.refuse(&Layer::default().symlink("x", &outside).file("x/pwned", b"x").bytes());
    assert_eq!(error, "layer entry \"x/pwned\" goes through a link that leads out of its root: refused");
    let error = Lab::new().refuse(&Layer::default().symlink("a", "b").symlink("b", "a").file("a/x", b"x").bytes());
    assert_eq!(error, "layer entry \"a/x\" goes through a link that leads out of its root: refused");
    let error = Lab::new().refuse(&Layer::default().file("f", b"x").file("f/x", b"x").bytes());
    assert!(error.contains("below something that is no directory"), "{error}");
}

#[test]
fn a_directory_swapped_for_a_link_while_unpacking_leads_nowhere_else() {
    let lab = Lab::new();
    let outside = lab.temp.path().to_str().expect("text").to_owned();
    let layer =
        Layer::default().dir("d").file("d/one", b"1").symlink("d", &outside).file("d/outside", b"pwned").bytes();
    assert!(lab.refuse(&layer).contains("goes through a link"));

    // the same with a link that leads somewhere inside: it is followed, inside
    let lab = Lab::new();
    let layer = Layer::default().dir("e").dir("d").file("d/one", b"1").symlink("d", "/e").file("d/two", b"2").bytes();
    lab.unpack(&layer).expect("unpacks");
    assert_eq!(read(lab.root().join("e/two")), "2");
    assert!(!lab.root().join("e/one").exists());
}

#[test]
fn hard_links_out_of_the_root_are_refused() {
    let lab = Lab::new();
    let outside = lab.temp.path().join("outside").to_str().expect("text").to_owned();
    for target in ["../outside", &outside, "nothing", ""] {
        let error = Lab::new().refuse(&Layer::default().hard_link("h", target).bytes());
        assert_eq!(
            error,
            format!("layer entry \"h\" is a hard link to {target:?}, which is not in the layer: refused")
        );
    }
    let parent = lab.temp.path().to_str().expect("text").to_owned();
    let error = lab.refuse(&Layer::default().symlink("l", &parent).hard_link("h", "l/outside").bytes());
    assert!(error.contains("is a hard link to \"l/outside\", which is not in the layer"), "{error}");
    // a link to a link is a link, not what it points at
    lab.unpack(&Layer::default().symlink("s", &outside).hard_link("h", "s").file("h", b"own").bytes())
        .expect("unpacks");
    let error = Lab::new().refuse(&Layer::default().dir("d").hard_link("h", "d").bytes());
    assert!(error.contains("hard link to a directory"), "{error}");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let lab = Lab::new();
    let layer = Layer::default()
        .dir("d")
        .file("d/x", b"x")
        .file("d", b"now a file")
        .file("e", b"file")
        .dir("e")
        .file("e/x", b"1")
        .file("e/x", b"2")
        .hard_link("e/x", "e/x")
        .bytes();
    lab.unpack(&layer).expect("unpacks");
    assert_eq!(read(lab.root().join("d")), "now a file");
    assert_eq!(read(lab.root().join("e/x")), "2");
    assert!(is_opaque(&lab.root().join("e")), "the file hid what is below, and so must the directory");
}

#[test]
fn damaged_and_absurd_archives_are_refused() {
    let good = Layer::default().file("a", &[7; 4000]).bytes();
    let refuse = |layer: &[u8]| Lab::new().refuse(layer);
    assert!(refuse(&good[..2000]).contains("unexpected end of file"), "cut in a file");
    assert!(refuse(&good[..100]).contains("unexpected end of file"), "cut in a header");
    let compressed = gzip(&good);
    assert!(refuse(&compressed[..compressed.len() - 12]).starts_with("failed to read layer"), "cut in the compression");
    assert!(refuse(&[1; 4096]).contains("not a tar archive"));
    let mut flipped = good.clone();
    flipped[3] ^= 1;
    assert!(refuse(&flipped).contains("damaged"));

    let huge =
        Layer::default().entry(EntryType::XHeader, "pax", "", b"").with(|header| header.set_size(1 << 40)).bytes();
    assert!(refuse(&huge).contains("an extended header of 1099511627776 bytes"));
    let huge =
        Layer::default().entry(EntryType::GNULongName, "x", "", b"").with(|header| header.set_size(1 << 32)).bytes();
    assert!(refuse(&huge).contains("an extended header of"));
    let lying = Layer::default().pax(&[("size", b"18446744073709551615")]).file("a", b"x").bytes();
    assert!(refuse(&lying).contains("its size is absurd"));
    let strange = Layer::default().file("a", b"").with(|header| header.set_entry_type(EntryType::new(b'Z'))).bytes();
    assert!(refuse(&strange).contains("unsupported type 'Z'"));
    let user = Layer::default().pax(&[("uid", b"99999999999")]).file("a", b"").bytes();
    assert!(refuse(&user).contains("its user id is no number below 2^32"));
}

#[test]
fn implied_directories_take_the_attributes_of_the_layers_below() {
    let (lower, upper) = (Lab::new(), Lab::new());
    let layer =
        Layer::default().dir("./").with(|header| header.set_mode(0o711)).dir("home").dir("home/me").with(|header| {
            header.set_mode(0o700);
            header.set_uid(1000);
        });
    lower.unpack(&layer.bytes()).expect("unpacks");
    let unpacked =
        upper.unpack(&Layer::default().file("home/me/x", b"x").file("new/y", b"y").bytes()).expect("unpacks");
    assert_eq!(unpacked.implied, ["home", "home/me", "new", ""].map(std::path::PathBuf::from));
    finish(&upper.root(), &unpacked.implied, &[lower.root()]).expect("finishes");
    let look = |name: &str| {
        fs::metadata(upper.root().join(name))
            .map(|found| (found.mode() & 0o7777, found.uid(), found.mtime()))
            .expect("there")
    };
    assert_eq!(look("home/me"), (0o700, 1000, 1_000_000));
    assert_eq!(look("").0, 0o711);
    assert_eq!((look("new").0, look("new").1), (0o755, 0));
}

#[test]
fn implied_directories_behind_a_link_do_not_reach_the_machines_own() {
    let lab = Lab::new();
    let victim = lab.temp.path().join("victim");
    fs::create_dir(&victim).expect("made");
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o700)).expect("set");
    std::os::unix::fs::symlink(lab.temp.path(), lab.root().join("link")).expect("linked");
    finish(&lab.root(), &["link/victim".into()], &[]).expect("finishes");
    assert_eq!(fs::metadata(&victim).expect("there").mode() & 0o7777, 0o700);
}

/// What GNU tar writes is read: long names, and files with holes in each of its formats.
#[test]
fn gnu_tars_formats_are_read() {
    let source = tempfile::tempdir().expect("temp dir");
    let long = "n".repeat(200);
    fs::write(source.path().join(&long), "long").expect("written");
    fs::write(source.path().join("plain"), "plain").expect("written");
    let holes = fs::File::create(source.path().join("holes")).expect("created");
    for (offset, data) in [(1 << 20, b"one"), (3 << 20, b"two")] {
        std::os::unix::fs::FileExt::write_all_at(&holes, data, offset).expect("written");
    }
    holes.set_len(5 << 20).expect("sized");
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let made = Command::new("tar")
            .args(["-c", "--sparse"])
            .args(format)
            .arg("-C")
            .arg(source.path())
            .arg(".")
            .output()
            .expect("tar runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let lab = Lab::new();
        lab.unpack(&made.stdout).unwrap_or_else(|error| panic!("{format:?}: {error}"));
        let names = ["holes", "plain", long.as_str()];
        for name in names {
            assert!(
                fs::read(source.path().join(name)).expect("read") == fs::read(lab.root().join(name)).expect("read"),
                "{format:?}: {name}"
            );
        }
        let blocks = fs::metadata(lab.root().join("holes")).expect("there").blocks();
        assert!(blocks * 512 < 1 << 20, "{format:?}: the holes are filled: {blocks} blocks");
        let name = fs::read_dir(lab.root()).expect("list").count();
        assert_eq!(name, 3, "{format:?}");
    }
}

proptest::proptest! {
    /// Whatever a layer does with names and links, nothing outside its root changes.
    #[test]
    fn no_sequence_of_entries_leaves_the_root(
        entries in proptest::collection::vec((0u8..5, "(\\.\\./|/|a/|b/|c/){0,4}(a|b|c|\\.wh\\.a|\\.\\.)", "(\\.\\./|/|a/|b/){0,5}(a|b|outside|\\.\\.)"), 1..20)
    ) {
        let lab = Lab::new();
        let mut layer = Layer::default();
        for (kind, name, target) in &entries {
            layer = match kind {
                0 => layer.dir(name),
                1 => layer.file(name, b"pwned"),
                2 => layer.symlink(name, target),
                3 => layer.symlink(name, lab.temp.path().join(target.trim_start_matches(['/', '.'])).to_str().expect("text")),
                _ => layer.hard_link(name, target),
            };
        }
        let result = lab.unpack(&layer.bytes());
        drop(result);
        let beside: Vec<_> = fs::read_dir(lab.temp.path()).expect("list").map(|entry| entry.expect("entry").file_name().as_bytes().to_vec()).collect();
        proptest::prop_assert_eq!(beside.len(), 3);
    }
}

//! Options of the `json-file` log driver. Pure.

use std::collections::{BTreeMap, HashMap};

use bollard_stubs::models::HostConfigLogConfig;

use crate::container::{ContainerSpec, LogSpec};
use crate::error::{Error, Result};
use crate::names::short;

const OPTIONS: &[&str] =
    &["max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode"];

/// Which driver a container gets: its own words, else the node's defaults.
pub fn effective(
    asked: Option<HostConfigLogConfig>,
    driver: &str,
    options: &BTreeMap<String, String>,
) -> HostConfigLogConfig {
    let asked = asked.unwrap_or_default();
    let named = asked.typ.filter(|t| !t.is_empty());
    let mut config = asked.config.unwrap_or_default();
    // as in Docker, the node's options belong to the node's driver
    if named.as_deref().is_none_or(|name| name == driver) {
        for (key, value) in options {
            config.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    HostConfigLogConfig { typ: Some(named.unwrap_or_else(|| driver.to_owned())), config: Some(config) }
}

/// Reads a driver's options.
///
/// # Errors
/// 400 for an option that there is none of, 501 for a driver that is not there yet.
pub fn parse(config: &HostConfigLogConfig) -> Result<LogSpec> {
    let options = config.config.clone().unwrap_or_default();
    match config.typ.as_deref().unwrap_or_default() {
        "none" => return Ok(LogSpec::default()),
        "json-file" => {}
        driver => return Err(Error::unsupported(format!("the log driver {driver:?}"))),
    }
    if let Some(key) = options.keys().find(|key| !OPTIONS.contains(&key.as_str())) {
        return Err(Error::invalid(format!("unknown log opt '{key}' for json-file log driver")));
    }
    for key in ["labels-regex", "env-regex"] {
        if options.contains_key(key) {
            return Err(Error::unsupported(format!("the log option {key:?}")));
        }
    }
    match options.get("mode").map(String::as_str) {
        None | Some("" | "blocking") => {}
        Some(mode) => return Err(Error::unsupported(format!("the log option mode={mode:?}"))),
    }
    let max_size = match options.get("max-size").map(String::as_str) {
        None | Some("" | "-1") => None,
        Some(text) => Some(size(text).ok_or_else(|| Error::invalid(format!("invalid value for max-size: {text:?}")))?),
    };
    let max_file = number(&options, "max-file")?.unwrap_or(1);
    if max_file < 1 {
        return Err(Error::invalid("max-file cannot be less than 1"));
    }
    if max_file > 1 && max_size.is_none() {
        return Err(Error::invalid("max-size must be specified when using max-file > 1"));
    }
    let compress = match options.get("compress").map(String::as_str) {
        None | Some("" | "false" | "0") => false,
        Some("true" | "1") => true,
        Some(text) => return Err(Error::invalid(format!("invalid value for compress: {text:?}"))),
    };
    if compress && (max_size.is_none() || max_file == 1) {
        return Err(Error::invalid("compress cannot be true when max-file is less than 2 or max-size is not set"));
    }
    Ok(LogSpec { json_file: true, max_size, max_file, compress, attrs: BTreeMap::new() })
}

fn number(options: &HashMap<String, String>, key: &str) -> Result<Option<u32>> {
    match options.get(key).map(String::as_str) {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| Error::invalid(format!("invalid value for {key}: {text:?}"))),
    }
}

/// `10m`, `1.5g`, `100kb`, `4096`: bytes, in powers of 1024.
pub fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
    let factor: u64 = match lower[digits.len()..].trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    let number: f64 = digits.parse().ok()?;
    let bytes = number * factor as f64;
    (bytes.is_finite() && bytes >= 0.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
}

/// The attributes that each line of a container's log carries.
pub fn attributes(spec: &ContainerSpec) -> BTreeMap<String, String> {
    let options = spec.host_config.log_config.as_ref().and_then(|log| log.config.as_ref());
    let option = |key: &str| options.and_then(|all| all.get(key)).map(String::as_str).unwrap_or_default();
    let names = |key: &str| -> Vec<String> {
        option(key).split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    let mut attrs = BTreeMap::new();
    for name in names("labels") {
        if let Some(value) = spec.label(&name) {
            attrs.insert(name, value.to_owned());
        }
    }
    for name in names("env") {
        let value = spec.config.env.iter().flatten().find_map(|entry| entry.strip_prefix(&format!("{name}=")));
        if let Some(value) = value {
            attrs.insert(name, value.to_owned());
        }
    }
    let tag = option("tag");
    if !tag.is_empty() {
        let tag = tag
            .replace("{{.ID}}", short(&spec.id))
            .replace("{{.FullID}}", &spec.id)
            .replace("{{.Name}}", &spec.name)
            .replace("{{.ImageName}}", spec.image_name())
            .replace("{{.DaemonName}}", "docker");
        attrs.insert("tag".to_owned(), tag);
    }
    attrs
}

/// Whether a `tag` template says more than is understood.
pub fn check_tag(config: &HostConfigLogConfig) -> Result<()> {
    let tag = config.config.as_ref().and_then(|all| all.get("tag")).map(String::as_str).unwrap_or_default();
    let mut rest = tag.to_owned();
    for known in ["{{.ID}}", "{{.FullID}}", "{{.Name}}", "{{.ImageName}}", "{{.DaemonName}}"] {
        rest = rest.replace(known, "");
    }
    if rest.contains("{{") { Err(Error::unsupported(format!("the log tag template {tag:?}"))) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(typ: &str, options: &[(&str, &str)]) -> HostConfigLogConfig {
        let config = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        HostConfigLogConfig { typ: Some(typ.to_owned()), config: Some(config) }
    }

    #[test]
    fn options_are_read_and_wrong_ones_refused() {
        let log = parse(&config("json-file", &[("max-size", "10m"), ("max-file", "3"), ("compress", "true")])).unwrap();
        assert_eq!((log.max_size, log.max_file, log.compress, log.json_file), (Some(10 << 20), 3, true, true));
        assert!(!parse(&config("none", &[])).unwrap().json_file);
        for (typ, options, text) in [
            ("json-file", &[("max-sise", "1")][..], "unknown log opt 'max-sise' for json-file log driver"),
            ("json-file", &[("max-file", "2")], "max-size must be specified when using max-file > 1"),
            ("json-file", &[("max-size", "ten")], "invalid value for max-size: \"ten\""),
            ("syslog", &[], "the log driver \"syslog\" is not supported by Shoal yet"),
        ] {
            assert_eq!(parse(&config(typ, options)).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn the_nodes_options_fill_in_for_its_own_driver_only() {
        let node = BTreeMap::from([("max-size".to_owned(), "1m".to_owned())]);
        let own = effective(Some(config("", &[("max-file", "2")])), "json-file", &node);
        assert_eq!(own, config("json-file", &[("max-size", "1m"), ("max-file", "2")]));
        assert_eq!(effective(Some(config("none", &[])), "json-file", &node), config("none", &[]));
    }

    #[test]
    fn sizes() {
        assert_eq!(size("1.5k"), Some(1536));
        assert_eq!(size("20MB"), Some(20 << 20));
        for bad in ["", "x", "1q", "-1"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}

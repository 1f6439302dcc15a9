//! A container's configuration on top of its image's. Pure.

use std::collections::BTreeMap;

use bollard_stubs::models::{ContainerConfig, ContainerCreateBody, HealthConfig};
use shoal_image as image;

use crate::error::{Error, Result};

/// The part of a request that goes with a container wherever it runs.
pub fn portable(body: ContainerCreateBody) -> ContainerConfig {
    ContainerConfig {
        hostname: body.hostname,
        domainname: body.domainname,
        user: body.user,
        attach_stdin: body.attach_stdin,
        attach_stdout: body.attach_stdout,
        attach_stderr: body.attach_stderr,
        exposed_ports: body.exposed_ports,
        tty: body.tty,
        open_stdin: body.open_stdin,
        stdin_once: body.stdin_once,
        env: body.env,
        cmd: body.cmd,
        healthcheck: body.healthcheck,
        args_escaped: body.args_escaped,
        image: body.image,
        volumes: body.volumes,
        working_dir: body.working_dir,
        entrypoint: body.entrypoint,
        network_disabled: body.network_disabled,
        on_build: body.on_build,
        labels: body.labels,
        stop_signal: body.stop_signal,
        stop_timeout: body.stop_timeout,
        shell: body.shell,
    }
}

/// Fills in what the request leaves to the image, and returns program and arguments.
pub fn merge(config: &mut ContainerConfig, image: &image::ContainerConfig) -> Result<(String, Vec<String>)> {
    if is_empty(config.user.as_deref()) {
        config.user = Some(image.user.clone());
    }
    if is_empty(config.working_dir.as_deref()) {
        config.working_dir = Some(image.working_dir.clone());
    }
    if is_empty(config.stop_signal.as_deref()) {
        config.stop_signal = (!image.stop_signal.is_empty()).then(|| image.stop_signal.clone());
    }
    config.stop_timeout = config.stop_timeout.or(image.stop_timeout);
    config.exposed_ports = union(config.exposed_ports.take(), image.exposed_ports.keys());
    config.volumes = union(config.volumes.take(), image.volumes.keys());
    if config.shell.as_ref().is_none_or(Vec::is_empty) {
        config.shell = image.shell.clone();
    }
    if config.on_build.as_ref().is_none_or(Vec::is_empty) {
        config.on_build = image.on_build.clone();
    }
    merge_env(config.env.get_or_insert_default(), &image.env);
    merge_labels(config, image);
    merge_health(&mut config.healthcheck, image.healthcheck.as_ref());
    merge_command(config, image)
}

fn is_empty(text: Option<&str>) -> bool {
    text.unwrap_or_default().is_empty()
}

fn union<'a>(own: Option<Vec<String>>, more: impl Iterator<Item = &'a String>) -> Option<Vec<String>> {
    let mut all = own.unwrap_or_default();
    for item in more {
        if !all.contains(item) {
            all.push(item.clone());
        }
    }
    all.sort();
    (!all.is_empty()).then_some(all)
}

fn merge_env(own: &mut Vec<String>, image: &[String]) {
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let given: Vec<String> = own.iter().map(|entry| key(entry)).collect();
    own.extend(image.iter().filter(|entry| !given.contains(&key(entry))).cloned());
}

fn merge_labels(config: &mut ContainerConfig, image: &image::ContainerConfig) {
    let labels = config.labels.get_or_insert_default();
    for (key, value) in &image.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

fn merge_health(own: &mut Option<HealthConfig>, image: Option<&image::HealthConfig>) {
    let Some(image) = image.filter(|image| !image.test.is_empty()) else { return };
    let own = own.get_or_insert_default();
    if own.test.as_ref().is_none_or(Vec::is_empty) {
        own.test = Some(image.test.clone());
    }
    for (own, image) in [
        (&mut own.interval, image.interval),
        (&mut own.timeout, image.timeout),
        (&mut own.start_period, image.start_period),
        (&mut own.start_interval, image.start_interval),
        (&mut own.retries, image.retries),
    ] {
        if own.unwrap_or_default() == 0 && image != 0 {
            *own = Some(image);
        }
    }
}

/// A request without a program takes the image's; one with a program takes none of the image's arguments.
fn merge_command(config: &mut ContainerConfig, image: &image::ContainerConfig) -> Result<(String, Vec<String>)> {
    let no_cmd = config.cmd.as_ref().is_none_or(Vec::is_empty);
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if no_cmd {
            config.cmd = image.cmd.clone();
        }
        if config.entrypoint.is_none() {
            config.entrypoint = image.entrypoint.clone();
        }
    }
    // `--entrypoint ""` comes as one empty string: none at all
    if config.entrypoint.as_ref().is_some_and(|e| e.len() == 1 && e[0].is_empty()) {
        config.entrypoint = None;
    }
    let mut command = config.entrypoint.iter().chain(&config.cmd).flatten().cloned();
    match command.next() {
        Some(path) => Ok((path, command.collect())),
        None => Err(Error::invalid("no command specified")),
    }
}

/// The process's environment: defaults, then what the container says, later entries in the place of earlier ones of the
/// same name. An entry without `=` takes a name out.
pub fn environment(config: &ContainerConfig, hostname: &str, tty: bool) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |entry: &str| {
        let Some((key, _)) = entry.split_once('=') else {
            values.remove(entry);
            order.retain(|key| key != entry);
            return;
        };
        if values.insert(key.to_owned(), entry.to_owned()).is_none() {
            order.push(key.to_owned());
        }
    };
    set("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    set(&format!("HOSTNAME={hostname}"));
    if tty {
        set("TERM=xterm");
    }
    config.env.iter().flatten().for_each(|entry| set(entry));
    order.iter().filter_map(|key| values.get(key).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    fn image(entrypoint: Option<&[&str]>, cmd: Option<&[&str]>) -> image::ContainerConfig {
        image::ContainerConfig {
            entrypoint: entrypoint.map(own),
            cmd: cmd.map(own),
            env: own(&["A=image", "B=image"]),
            ..image::ContainerConfig::default()
        }
    }

    fn command(
        entrypoint: Option<&[&str]>,
        cmd: Option<&[&str]>,
        image: &image::ContainerConfig,
    ) -> Result<Vec<String>> {
        let mut config =
            ContainerConfig { entrypoint: entrypoint.map(own), cmd: cmd.map(own), ..ContainerConfig::default() };
        merge(&mut config, image).map(|(path, args)| [vec![path], args].concat())
    }

    #[test]
    fn the_command_is_made_of_request_and_image_as_docker_does() {
        let both = image(Some(&["ep"]), Some(&["arg"]));
        assert_eq!(command(None, None, &both).unwrap(), ["ep", "arg"]);
        assert_eq!(command(None, Some(&["x"]), &both).unwrap(), ["ep", "x"]);
        assert_eq!(command(Some(&["sh"]), None, &both).unwrap(), ["sh"], "the image's arguments are not the program's");
        assert_eq!(command(Some(&[""]), Some(&["x"]), &both).unwrap(), ["x"], "--entrypoint '' takes the image's away");
        assert_eq!(command(None, None, &image(None, None)).unwrap_err().to_string(), "no command specified");
    }

    #[test]
    fn the_requests_environment_wins_and_an_entry_without_value_unsets() {
        let mut config = ContainerConfig { env: Some(own(&["A=own", "PATH"])), ..ContainerConfig::default() };
        merge(&mut config, &image(Some(&["x"]), None)).unwrap();
        assert_eq!(config.env.as_deref().unwrap(), own(&["A=own", "PATH", "B=image"]));
        assert_eq!(environment(&config, "host", true), own(&["HOSTNAME=host", "TERM=xterm", "A=own", "B=image"]));
    }

    #[test]
    fn health_checks_inherit_what_is_not_said() {
        let image = image::ContainerConfig {
            healthcheck: Some(image::HealthConfig { test: own(&["CMD", "x"]), retries: 7, ..Default::default() }),
            ..image(Some(&["x"]), None)
        };
        let mut config = ContainerConfig {
            healthcheck: Some(HealthConfig { interval: Some(5), ..HealthConfig::default() }),
            ..ContainerConfig::default()
        };
        merge(&mut config, &image).unwrap();
        let health = config.healthcheck.unwrap();
        assert_eq!((health.test.unwrap(), health.interval, health.retries), (own(&["CMD", "x"]), Some(5), Some(7)));
    }
}

//! Docker's bodies for images. Pure.

use std::collections::{BTreeMap, HashMap};

use bollard_stubs::models::{
    DriverData, HealthConfig, ImageConfig, ImageHistoryResponseItem, ImageInspect, ImageInspectMetadata,
    ImageInspectRootFs, ImageSummary,
};
use shoal_image::Image;

use crate::container::inspect::NEVER;

fn number(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A document's time as seconds; 0 where there is none.
pub(super) fn created(image: &Image) -> i64 {
    let time = image.config.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    time.map_or(0, |time| time.as_second())
}

pub(super) fn inspect(image: &Image) -> ImageInspect {
    let document = &image.config;
    ImageInspect {
        id: Some(image.id.to_string()),
        repo_tags: Some(image.repo_tags()),
        repo_digests: Some(image.repo_digests()),
        comment: Some(document.history.last().map(|step| step.comment.clone()).unwrap_or_default()),
        created: Some(document.created.clone().unwrap_or_else(|| NEVER.to_owned())),
        author: Some(document.author.clone()),
        config: Some(config(&document.config)),
        architecture: Some(document.architecture.clone()),
        variant: (!document.variant.is_empty()).then(|| document.variant.clone()),
        os: Some(document.os.clone()),
        size: Some(number(image.size())),
        graph_driver: Some(DriverData { name: "overlay2".to_owned(), data: HashMap::new() }),
        root_fs: Some(ImageInspectRootFs {
            typ: "layers".to_owned(),
            layers: Some(image.layers.iter().map(|layer| layer.diff.to_string()).collect()),
        }),
        metadata: Some(ImageInspectMetadata {
            last_tag_time: Some(image.last_tagged.map_or_else(|| NEVER.to_owned(), |time| time.to_string())),
        }),
        ..ImageInspect::default()
    }
}

fn keys(map: &BTreeMap<String, serde_json::Value>) -> Option<Vec<String>> {
    (!map.is_empty()).then(|| map.keys().cloned().collect())
}

fn config(own: &shoal_image::ContainerConfig) -> ImageConfig {
    let health = own.healthcheck.as_ref().map(|health| HealthConfig {
        test: Some(health.test.clone()),
        interval: Some(health.interval),
        timeout: Some(health.timeout),
        retries: Some(health.retries),
        start_period: Some(health.start_period),
        start_interval: Some(health.start_interval),
    });
    ImageConfig {
        user: Some(own.user.clone()),
        exposed_ports: keys(&own.exposed_ports),
        env: Some(own.env.clone()),
        cmd: own.cmd.clone(),
        healthcheck: health,
        args_escaped: own.args_escaped.then_some(true),
        volumes: keys(&own.volumes),
        working_dir: Some(own.working_dir.clone()),
        entrypoint: own.entrypoint.clone(),
        on_build: own.on_build.clone(),
        labels: Some(own.labels.clone().into_iter().collect()),
        stop_signal: (!own.stop_signal.is_empty()).then(|| own.stop_signal.clone()),
        shell: own.shell.clone(),
    }
}

/// A line of `docker images`. `shared` is -1 where it was not counted.
pub(super) fn summary(image: &Image, containers: usize, shared: i64) -> ImageSummary {
    ImageSummary {
        id: image.id.to_string(),
        parent_id: String::new(),
        repo_tags: image.repo_tags(),
        repo_digests: image.repo_digests(),
        created: created(image),
        size: number(image.size()),
        shared_size: shared,
        labels: image.config.config.labels.clone().into_iter().collect(),
        containers: i64::try_from(containers).unwrap_or(-1),
        ..ImageSummary::default()
    }
}

pub(super) fn history(image: &Image) -> Vec<ImageHistoryResponseItem> {
    let mut layers = image.layers.iter();
    let mut steps: Vec<ImageHistoryResponseItem> = image
        .config
        .history
        .iter()
        .map(|step| {
            let layer = if step.empty_layer { None } else { layers.next() };
            let time = step.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
            ImageHistoryResponseItem {
                id: "<missing>".to_owned(),
                created: time.map_or(0, |time| time.as_second()),
                created_by: step.created_by.clone(),
                tags: Vec::new(),
                size: layer.map_or(0, |layer| number(layer.size)),
                comment: step.comment.clone(),
            }
        })
        .collect();
    if let Some(last) = steps.last_mut() {
        last.id = image.id.to_string();
        last.tags = image.repo_tags();
    }
    steps.reverse();
    steps
}

//! `docker images` and `docker image prune`.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_stubs::models::{ImageDeleteResponseItem, ImagePruneResponse, ImageSummary};
use jiff::Timestamp;
use regex::Regex;
use shoal_image::{ChainId, Image, Reference, Removed};

use super::body;
use crate::container::filter::matches_label;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::{Filters, ImageListOptions};
use crate::volumes::api::{check_filters, flag};

impl Engine {
    /// Images, newest first. Filters: before, dangling, label, reference, since, until.
    pub async fn list_images(&self, options: ImageListOptions) -> Result<Vec<ImageSummary>> {
        check_filters(&options.filters, &["before", "dangling", "label", "reference", "since", "until"])?;
        let filter = Filter::new(self, &options.filters)?;
        let (images, users) = (self.images.list(), self.image_users());
        let mut sharers: HashMap<ChainId, usize> = HashMap::new();
        for layer in images.iter().flat_map(|image| &image.layers) {
            *sharers.entry(layer.chain).or_default() += 1;
        }
        let shared = |image: &Image| -> i64 {
            if !options.shared_size {
                return -1;
            }
            let layers = image.layers.iter().filter(|layer| sharers.get(&layer.chain).is_some_and(|n| *n > 1));
            layers.map(|layer| i64::try_from(layer.size).unwrap_or(i64::MAX)).sum()
        };
        let listed = images.iter().filter_map(|image| filter.narrow(image));
        Ok(listed
            .map(|image| {
                let containers = users.iter().filter(|user| user.image == image.id).count();
                body::summary(&image, containers, shared(&image))
            })
            .collect())
    }

    /// Removes images that no container uses: those without a tag, with `dangling=false` all. Filters: dangling, label,
    /// label!, until.
    pub async fn prune_images(self: &Arc<Self>, filters: &Filters) -> Result<ImagePruneResponse> {
        check_filters(filters, &["dangling", "label", "label!", "until"])?;
        let dangling = flag(filters, "dangling")?.unwrap_or(true);
        let until = filters.get("until").and_then(|values| values.first()).map(|text| parse_time(text)).transpose()?;
        let labels = |name: &str| filters.get(name).map(Vec::as_slice).unwrap_or_default();
        let (mut deleted, mut freed) = (Vec::new(), 0_i64);
        for image in self.images.list() {
            let own = &image.config.config.labels;
            let wanted = (!dangling || image.tags.is_empty())
                && labels("label").iter().all(|l| matches_label(Some(own), l))
                && !labels("label!").iter().any(|l| matches_label(Some(own), l))
                && until.is_none_or(|until| body::created(&image) < until.as_second());
            if !wanted || self.image_users().iter().any(|user| user.image == image.id) {
                continue;
            }
            // one that is used or gone by now is left alone
            if let Ok(removed) = self.remove_image(&image.id.to_string(), true, true).await {
                let gone = |chain: &ChainId| removed.contains(&Removed::Deleted(chain.to_string()));
                let layers = image.layers.iter().filter(|layer| gone(&layer.chain));
                freed += layers.map(|layer| i64::try_from(layer.size).unwrap_or(i64::MAX)).sum::<i64>();
                deleted.extend(removed.into_iter().map(item));
            }
        }
        Ok(ImagePruneResponse { images_deleted: Some(deleted), space_reclaimed: Some(freed) })
    }
}

fn item(removed: Removed) -> ImageDeleteResponseItem {
    match removed {
        Removed::Untagged(name) => ImageDeleteResponseItem { untagged: Some(name), deleted: None },
        Removed::Deleted(id) => ImageDeleteResponseItem { untagged: None, deleted: Some(id) },
    }
}

struct Filter {
    all: Filters,
    before: Option<i64>,
    since: Option<i64>,
    until: Option<Timestamp>,
    dangling: Option<bool>,
    patterns: Vec<Regex>,
}

impl Filter {
    fn new(engine: &Engine, filters: &Filters) -> Result<Self> {
        let first = |name: &str| filters.get(name).and_then(|values| values.first());
        let other =
            |name: &str| first(name).map(|name| engine.resolve_image(name).map(|i| body::created(&i))).transpose();
        let patterns = filters.get("reference").into_iter().flatten().map(|pattern| glob(pattern));
        Ok(Self {
            before: other("before")?,
            since: other("since")?,
            until: first("until").map(|text| parse_time(text)).transpose()?,
            dangling: flag(filters, "dangling")?,
            patterns: patterns.collect::<Result<_>>()?,
            all: filters.clone(),
        })
    }

    /// The image with the names that the filter lets through; `None`: it is not wanted.
    fn narrow(&self, image: &Arc<Image>) -> Option<Arc<Image>> {
        let created = body::created(image);
        let labels = self.all.get("label").map(Vec::as_slice).unwrap_or_default();
        let passes = self.before.is_none_or(|time| created < time)
            && self.since.is_none_or(|time| created > time)
            && self.until.is_none_or(|until| created < until.as_second())
            && self.dangling.is_none_or(|wanted| image.tags.is_empty() == wanted)
            && labels.iter().all(|label| matches_label(Some(&image.config.config.labels), label));
        if !passes {
            return None;
        }
        if self.patterns.is_empty() {
            return Some(image.clone());
        }
        let fits = |r: &&Reference| {
            self.patterns.iter().any(|pattern| pattern.is_match(&r.familiar()) || pattern.is_match(&r.familiar_name()))
        };
        let mut narrow = (**image).clone();
        narrow.tags = image.tags.iter().filter(fits).cloned().collect();
        narrow.digests = image.digests.iter().filter(fits).cloned().collect();
        (!narrow.tags.is_empty() || !narrow.digests.is_empty()).then(|| Arc::new(narrow))
    }
}

/// `*` and `?` stop at a slash.
fn glob(pattern: &str) -> Result<Regex> {
    let mut text = String::from("^");
    for c in pattern.chars() {
        match c {
            '*' => text.push_str("[^/]*"),
            '?' => text.push_str("[^/]"),
            '[' | ']' => text.push(c),
            other => text.push_str(&regex::escape(&other.to_string())),
        }
    }
    text.push('$');
    Regex::new(&text)
        .map_err(|_| Error::invalid(format!("invalid filter 'reference={pattern}': syntax error in pattern")))
}

/// A time as filters have it: RFC 3339, seconds since 1970, or a span before now (`24h`).
pub(crate) fn parse_time(text: &str) -> Result<Timestamp> {
    let invalid = || Error::invalid(format!("invalid time: {text:?}"));
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Timestamp::from_nanosecond((seconds * 1e9) as i128).map_err(|_| invalid());
    }
    if let Ok(day) = text.parse::<jiff::civil::Date>() {
        return day.to_zoned(jiff::tz::TimeZone::UTC).map(|day| day.timestamp()).map_err(|_| invalid());
    }
    let span: jiff::SignedDuration = text.parse().map_err(|_| invalid())?;
    Timestamp::now().checked_sub(span).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stop_at_slashes() {
        let fits = |pattern: &str, name: &str| glob(pattern).unwrap().is_match(name);
        assert!(fits("busy*", "busybox") && fits("*:1", "busybox:1") && fits("a.b/*", "a.b/c"));
        assert!(!fits("busy*", "user/busybox") && !fits("a.b/*", "aXb/c") && !fits("*", "a/b"));
        assert!(glob("[").is_err());
    }

    #[test]
    fn times_of_all_forms() {
        assert_eq!(parse_time("12.5").unwrap().as_nanosecond(), 12_500_000_000);
        assert_eq!(parse_time("2026-01-02T00:00:00Z").unwrap(), parse_time("2026-01-02").unwrap());
        assert!(parse_time("24h").unwrap() < Timestamp::now());
        assert!(parse_time("soon").is_err());
    }
}

//! What the events of a container say about it.

use std::collections::HashMap;

use super::Container;
use super::spec::ContainerSpec;

/// Labels, image and name, and what else belongs to the event.
pub(crate) fn attributes(spec: &ContainerSpec, more: &[(&str, String)]) -> HashMap<String, String> {
    let mut all = spec.config.labels.clone().unwrap_or_default();
    if !spec.image_name().is_empty() {
        all.insert("image".to_owned(), spec.image_name().to_owned());
    }
    all.insert("name".to_owned(), spec.name.clone());
    all.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    all
}

impl crate::Engine {
    /// Emits an event of a container.
    pub(crate) fn container_event(&self, container: &Container, action: &str, more: &[(&str, String)]) {
        let spec = container.spec();
        self.events.emit(
            bollard_stubs::models::EventMessageTypeEnum::CONTAINER,
            action,
            container.id.as_str(),
            attributes(&spec, more),
        );
    }
}

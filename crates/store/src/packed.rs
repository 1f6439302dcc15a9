//! Lists of changes in the log. New tasks come many at a time and each carries the whole template of its service, so a list
//! holds each template once. `serialize` and `deserialize` are for serde's `with`.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use shoal_types::{Change, Object, ObjectKind, Settled, TaskPatch};

use crate::rows::{TaskRow, Template, Templates};

/// One item of a packed list: a change, or a template for tasks that follow.
#[derive(Debug, Serialize, Deserialize)]
pub struct Packed<'a>(Item<'a>);

/// Named as the variants of [`Change`], so that what was written without templates can be read.
#[derive(Debug, Serialize, Deserialize)]
enum Item<'a> {
    Put(Cow<'a, Object>),
    Patch(Cow<'a, TaskPatch>),
    Remove(ObjectKind),
    Settle(Cow<'a, Settled>),
    /// Numbered from 0 in the order of the list.
    Template(Template),
    /// A new task.
    Task(Box<TaskRow>),
}

/// Packs one list.
#[derive(Debug, Default)]
pub struct Packer(Templates);

// === impl Packer ===

impl Packer {
    /// `change` as items of the list, after what was packed before. All packed changes must stay where they are.
    pub fn pack<'a>(&mut self, change: &'a Change) -> impl Iterator<Item = Packed<'a>> + use<'a> {
        let (template, item) = match change {
            Change::Put(Object::Task(task)) => {
                let (number, template) = self.0.of(task);
                (template.map(Item::Template), Item::Task(Box::new(TaskRow::new(task, number))))
            }
            Change::Put(object) => (None, Item::Put(Cow::Borrowed(object))),
            Change::Patch(patch) => (None, Item::Patch(Cow::Borrowed(patch))),
            Change::Remove(id) => (None, Item::Remove(*id)),
            Change::Settle(settled) => (None, Item::Settle(Cow::Borrowed(settled))),
        };
        template.into_iter().chain([item]).map(Packed)
    }
}

/// Writes `changes` packed.
///
/// # Errors
/// Those of `serializer`.
pub fn serialize<S: Serializer>(changes: &[Change], serializer: S) -> Result<S::Ok, S::Error> {
    let mut packer = Packer::default();
    serializer.collect_seq(changes.iter().flat_map(|change| packer.pack(change)))
}

/// Reads what [`serialize`] wrote.
///
/// # Errors
/// Those of `deserializer`, and a task without its template.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[Change]>, D::Error> {
    let items = Vec::<Packed<'static>>::deserialize(deserializer)?;
    let (mut templates, mut changes) = (Vec::new(), Vec::with_capacity(items.len()));
    for Packed(item) in items {
        changes.push(match item {
            Item::Put(object) => Change::Put(object.into_owned()),
            Item::Patch(patch) => Change::Patch(patch.into_owned()),
            Item::Remove(id) => Change::Remove(id),
            Item::Settle(settled) => Change::Settle(settled.into_owned()),
            Item::Template(template) => {
                templates.push(template);
                continue;
            }
            Item::Task(row) => {
                let task = row.with(&templates).ok_or_else(|| de::Error::custom("a task without its template"))?;
                Change::Put(Object::Task(Arc::new(task)))
            }
        });
    }
    Ok(changes.into())
}

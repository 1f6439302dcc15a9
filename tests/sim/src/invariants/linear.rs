//! Registers are linearizable: there is one order of all writes that were made, it holds every write that was answered
//! and none that was refused, and whoever begins after another has ended does not see less.
//!
//! The order is known exactly: a write names the version that it replaces, and is refused where that is not the newest.

use std::collections::BTreeMap;

use crate::cluster::Cluster;
use crate::ledger::{Operation, Outcome, Register, Value};

pub fn check(cluster: &Cluster) -> Vec<String> {
    cluster.ledger.registers().iter().flat_map(|(name, register)| wrong(cluster, name, register)).collect()
}

fn wrong(cluster: &Cluster, name: &str, register: &Register) -> Vec<String> {
    let state = cluster.site.observer.latest();
    let Some(last) = crate::client::register_value(&state, name) else {
        return vec![format!("{name} is gone")];
    };
    let order = match order(register, last) {
        Ok(order) => order,
        Err(error) => return vec![format!("{name}: {error}")],
    };
    let mut wrong = membership(name, register, &order);
    wrong.extend(real_time(name, register, &order));
    wrong
}

/// The place of each value in the one order of writes, read backwards from the last one.
fn order(register: &Register, last: Value) -> Result<BTreeMap<Value, usize>, String> {
    let base: BTreeMap<Value, Value> = register.operations.iter().filter_map(|o| Some((o.wrote?, o.base))).collect();
    let mut chain = vec![last];
    while let Some(&value) = chain.last().filter(|v| **v != 0) {
        let before = base.get(&value).ok_or_else(|| format!("nobody wrote {value}"))?;
        if chain.contains(before) {
            return Err(format!("{before} came before and after {value}"));
        }
        chain.push(*before);
    }
    Ok(chain.into_iter().rev().enumerate().map(|(place, value)| (value, place)).collect())
}

fn membership(name: &str, register: &Register, order: &BTreeMap<Value, usize>) -> Vec<String> {
    let wrong = register.operations.iter().filter_map(|operation| {
        let value = operation.wrote.unwrap_or(operation.base);
        let is_there = order.contains_key(&value);
        match (operation.wrote, operation.outcome) {
            (Some(_), Outcome::Done) if !is_there => {
                Some(format!("{name}: the write of {value} was answered and is lost ({operation:?})"))
            }
            (Some(_), Outcome::Refused) if is_there => {
                Some(format!("{name}: the write of {value} was refused and happened ({operation:?})"))
            }
            (None, Outcome::Done) if !is_there => {
                Some(format!("{name}: {value} was read and never written for good ({operation:?})"))
            }
            _ => None,
        }
    });
    wrong.collect()
}

/// Whether operations that followed each other in time saw the order of writes.
fn real_time(name: &str, register: &Register, order: &BTreeMap<Value, usize>) -> Vec<String> {
    let place = |o: &Operation| order.get(&o.wrote.unwrap_or(o.base)).copied();
    let mut done: Vec<(&Operation, usize)> = Vec::new();
    for operation in &register.operations {
        let counts = operation.outcome == Outcome::Done && !operation.is_stale;
        if let Some(place) = place(operation).filter(|_| counts) {
            done.push((operation, place));
        }
    }
    let mut by_end = done.clone();
    by_end.sort_by_key(|(o, _)| o.end);
    done.sort_by_key(|(o, _)| o.begin);
    let (mut ended, mut highest): (usize, Option<(&Operation, usize)>) = (0, None);
    let mut wrong = Vec::new();
    for (operation, place) in done {
        while let Some((before, place)) = by_end.get(ended).filter(|(o, _)| o.end < operation.begin) {
            if highest.is_none_or(|(_, most)| *place > most) {
                highest = Some((before, *place));
            }
            ended += 1;
        }
        let Some((before, most)) = highest else { continue };
        if place < most || (operation.wrote.is_some() && place == most) {
            wrong.push(format!("{name}: {operation:?} came after {before:?} and saw less"));
        }
    }
    wrong
}

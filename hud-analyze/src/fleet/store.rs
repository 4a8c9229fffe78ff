//! Finds the files of a store that may have rows of a time range, service and host.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use hud_common::session::Table;
use serde::{Deserialize, Serialize};

use super::{
    files::{names, read_json},
    partition::{DAY, Partition, escaped, start_of, value_of},
};
use crate::error::{Error, Result};

/// The version of the store's layout that this code writes, and the newest that it reads.
pub(super) const VERSION: u32 = 1;

/// The rows that are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Start (ns since the epoch).
    pub(crate) from: i64,
    /// End, exclusive.
    pub(crate) to: i64,
    pub(crate) service: Option<String>,
    pub(crate) host: Option<String>,
}

/// A fleet store in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// The index of a day.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) version: u32,
    pub(super) compacted: Vec<Compacted>,
}

/// Sessions of a service whose rows of the day are in compact files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Compacted {
    pub(super) service: String,
    /// Number in the names of the files.
    pub(super) number: u32,
    /// Tables with such a file.
    pub(super) tables: Vec<String>,
    /// Host and session id of each.
    pub(super) sessions: Vec<(String, String)>,
}

/// The complete files of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    /// Sessions with files of their own.
    pub(super) sessions: Vec<Partition>,
    /// Compact files, by day.
    pub(super) compacted: Vec<(String, Compacted)>,
}

impl Store {
    /// The store at a folder.
    pub(crate) fn at(root: &Path) -> Self {
        Store { root: root.into() }
    }

    /// The store at a folder, which must be one.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let store = Store::at(root);
        if store.root.join("manifest").is_dir() || store.root.join("index").is_dir() {
            return Ok(store);
        }
        Err(Error::Usage {
            message: format!("{} is no fleet store", root.display()),
            hint: "make one by `hud-analyze rollup SESSION… --store STORE`".into(),
        })
    }

    /// The name of a file of the store in an object store.
    pub(super) fn name(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned()
    }

    pub(super) fn part(&self, table: Table, of: &Partition) -> PathBuf {
        self.root.join(table.name()).join(of.path()).join("part.parquet")
    }

    pub(super) fn manifest(&self, of: &Partition) -> PathBuf {
        self.root.join("manifest").join(format!("{}.json", of.path()))
    }

    pub(super) fn index_path(&self, date: &str) -> PathBuf {
        self.root.join("index").join(format!("date={date}.json"))
    }

    pub(super) fn compact_file(&self, table: &str, date: &str, service: &str, number: u32) -> PathBuf {
        let folder = self.root.join(table).join(format!("date={date}")).join(format!("service={}", escaped(service)));
        folder.join(format!("compact-{number:06}.parquet"))
    }

    /// The index of a day.
    pub(super) fn index(&self, date: &str) -> Result<Index> {
        let path = self.index_path(date);
        let index: Index = read_json(&path)?.unwrap_or(Index { version: VERSION, compacted: Vec::new() });
        if index.version > VERSION {
            return Err(Error::Usage {
                message: format!("{} was written by a newer hud (version {})", path.display(), index.version),
                hint: "read it with that hud".into(),
            });
        }
        Ok(index)
    }

    /// The days of the store that are a date, in order.
    pub(crate) fn dates(&self) -> Result<Vec<String>> {
        let of_manifests = names(&self.root.join("manifest"))?;
        let of_indexes = names(&self.root.join("index"))?;
        let of_indexes = of_indexes.iter().filter_map(|name| name.strip_suffix(".json"));
        let all = of_manifests.iter().map(String::as_str).chain(of_indexes);
        let dates: BTreeSet<String> = all.filter_map(|name| value_of(name, "date")).collect();
        Ok(dates.into_iter().filter(|date| start_of(date).is_some()).collect())
    }

    /// The time range of its days (ns since the epoch); `None` if it is empty.
    pub(crate) fn range(&self) -> Result<Option<(i64, i64)>> {
        let dates = self.dates()?;
        let first = dates.first().and_then(|date| start_of(date));
        let last = dates.last().and_then(|date| start_of(date));
        Ok(first.zip(last.map(|last| last.saturating_add(DAY))))
    }

    /// What there is of a selection. Manifests are listed before indexes are read, so that a session that is compacted meanwhile
    /// is found in one of both.
    pub(crate) fn content(&self, selection: &Selection) -> Result<Content> {
        let mut content = Content::default();
        for date in self.dates()? {
            let is_within =
                start_of(&date).is_some_and(|start| start < selection.to && start.saturating_add(DAY) > selection.from);
            if !is_within {
                continue;
            }
            let listed = self.sessions_of(&date, selection)?;
            let index = self.index(&date)?;
            let known: BTreeSet<(&str, &str, &str)> = index
                .compacted
                .iter()
                .flat_map(|of| of.sessions.iter().map(|(host, id)| (of.service.as_str(), host.as_str(), id.as_str())))
                .collect();
            let is_compacted =
                |of: &Partition| known.contains(&(of.service.as_str(), of.host.as_str(), of.session.as_str()));
            content.sessions.extend(listed.into_iter().filter(|of| !is_compacted(of)));
            let is_wanted = |of: &Compacted| {
                selection.service.as_ref().is_none_or(|service| *service == of.service)
                    && selection.host.as_ref().is_none_or(|host| of.sessions.iter().any(|(known, _)| known == host))
            };
            content.compacted.extend(index.compacted.into_iter().filter(is_wanted).map(|of| (date.clone(), of)));
        }
        Ok(content)
    }

    /// The sessions of a day with a manifest.
    fn sessions_of(&self, date: &str, selection: &Selection) -> Result<Vec<Partition>> {
        let day = self.root.join("manifest").join(format!("date={date}"));
        let mut found = Vec::new();
        let is_wanted = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        for folder in names(&day)? {
            let Some(service) = value_of(&folder, "service").filter(|of| is_wanted(&selection.service, of)) else {
                continue;
            };
            let of_service = day.join(&folder);
            for folder in names(&of_service)? {
                let Some(host) = value_of(&folder, "host").filter(|of| is_wanted(&selection.host, of)) else {
                    continue;
                };
                for name in names(&of_service.join(&folder))? {
                    if let Some(session) = name.strip_suffix(".json").and_then(|name| value_of(name, "session")) {
                        let (date, service, host) = (date.to_owned(), service.clone(), host.clone());
                        found.push(Partition { date, service, host, session });
                    }
                }
            }
        }
        Ok(found)
    }

    /// The files of a table with this content.
    pub(crate) fn files(&self, table: Table, content: &Content) -> Vec<PathBuf> {
        let own = content.sessions.iter().map(|of| self.part(table, of)).filter(|path| path.exists());
        let compacted = content.compacted.iter().filter(|(_, of)| of.tables.iter().any(|name| name == table.name()));
        let compacted = compacted.map(|(date, of)| self.compact_file(table.name(), date, &of.service, of.number));
        own.chain(compacted).collect()
    }
}

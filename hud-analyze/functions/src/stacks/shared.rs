//! The names that all functions share, loaded once.

use std::{
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use arrow::array::RecordBatch;
use datafusion::{
    error::Result,
    execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation},
};

use super::names::{Names, NamesBuilder, StackSource};

/// Batches in memory, as a source.
#[derive(Clone, Debug, Default)]
pub struct StackBatches {
    /// Of `stacks`.
    pub stacks: Vec<RecordBatch>,
    /// Of `frames`.
    pub frames: Vec<RecordBatch>,
    /// Of `modules`.
    pub modules: Vec<RecordBatch>,
}

impl StackSource for StackBatches {
    fn load(&self, names: &mut NamesBuilder) -> Result<()> {
        self.stacks.iter().try_for_each(|batch| names.add_stacks(batch))?;
        self.frames.iter().try_for_each(|batch| names.add_frames(batch))?;
        self.modules.iter().try_for_each(|batch| names.add_modules(batch))
    }
}

/// Names, and the memory that is reserved for them.
pub(super) struct Loaded {
    names: Names,
    _reserved: MemoryReservation,
}

impl Deref for Loaded {
    type Target = Names;

    fn deref(&self) -> &Names {
        &self.names
    }
}

struct Inner {
    source: Arc<dyn StackSource>,
    pool: Arc<dyn MemoryPool>,
    loaded: Mutex<Option<Arc<Loaded>>>,
}

/// Names that are loaded on first use. Equal only to its clones.
#[derive(Clone)]
pub(super) struct SharedNames(Arc<Inner>);

impl SharedNames {
    pub(super) fn new(source: Arc<dyn StackSource>, pool: Arc<dyn MemoryPool>) -> Self {
        SharedNames(Arc::new(Inner { source, pool, loaded: Mutex::default() }))
    }

    /// The names. Callers wait while they are being loaded.
    pub(super) fn get(&self) -> Result<Arc<Loaded>> {
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = &*loaded {
            return Ok(Arc::clone(loaded));
        }
        let (names, reserved) = Names::load(&*self.0.source, &self.0.pool)?;
        Ok(Arc::clone(loaded.insert(Arc::new(Loaded { names, _reserved: reserved }))))
    }

    /// Memory that is reserved while a batch is made.
    pub(super) fn reserve(&self, what: &str, bytes: usize) -> Result<MemoryReservation> {
        let reserved = MemoryConsumer::new(what).register(&self.0.pool);
        reserved.try_grow(bytes)?;
        Ok(reserved)
    }
}

impl fmt::Debug for SharedNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedNames").field(&self.0.source).finish()
    }
}

impl PartialEq for SharedNames {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SharedNames {}

impl Hash for SharedNames {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

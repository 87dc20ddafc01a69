//! What a join costs.

use std::fmt::Debug;

/// One side of a join, or what comes out of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JoinSide {
    /// Rows.
    pub rows: f64,
    /// Bytes of a row.
    pub width: f64,
}

/// A join with its two sides and its output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JoinShape {
    /// The side that is read first and kept in memory.
    pub build: JoinSide,
    /// The side that streams past it.
    pub probe: JoinSide,
    /// The result.
    pub output: JoinSide,
    /// Partitions that the plan runs in.
    pub partitions: usize,
}

/// How DataFusion joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinMethod {
    /// A hash table of the whole build side, made by one partition and probed by all (`CollectLeft`).
    BroadcastHash,
    /// Both sides repartitioned by their keys, a hash table per partition.
    PartitionedHash,
    /// Both sides sorted by their keys; the only method with keys that can spill to disk.
    SortMerge,
    /// Every pair of rows, for joins without equal keys.
    NestedLoop,
}

/// The cost of joining and scanning; the cost of a tree is the sum over its nodes. Only ratios of costs count.
pub trait CostModel: Debug + Send + Sync {
    /// Cost of a join by one method.
    fn join(&self, method: JoinMethod, join: &JoinShape) -> f64;

    /// Cost of reading a table.
    fn scan(&self, output: JoinSide, partitions: usize) -> f64;

    /// The cheaper of the two hash joins, with its cost.
    fn hash_join(&self, join: &JoinShape) -> (JoinMethod, f64) {
        let broadcast = self.join(JoinMethod::BroadcastHash, join);
        if join.partitions <= 1 {
            return (JoinMethod::BroadcastHash, broadcast);
        }
        let partitioned = self.join(JoinMethod::PartitionedHash, join);
        if partitioned < broadcast {
            (JoinMethod::PartitionedHash, partitioned)
        } else {
            (JoinMethod::BroadcastHash, broadcast)
        }
    }
}

/// The time that DataFusion takes, in nanoseconds. The constants are those of one core.
///
/// `relata-bench calibrate` measures joins of many shapes and prints the constants that fit them; the default ones are rounded
/// from four such runs on two busy cores of a Xeon, which differ from each other by a factor of two, in what exchanges and
/// cache misses cost by more.
#[derive(Debug, Clone, Copy)]
pub struct ExecutionTime {
    /// To hash and insert a row of the build side,
    pub build_row: f64,
    /// and to copy a byte of it.
    pub build_byte: f64,
    /// To hash and look up a row of the probe side,
    pub probe_row: f64,
    /// and what a look-up or a match takes longer with every doubling of a hash table beyond 32,768 rows.
    pub miss: f64,
    /// To gather a row of the output,
    pub output_row: f64,
    /// and to copy a byte of it.
    pub output_byte: f64,
    /// To send a row to another partition,
    pub exchange_row: f64,
    /// and to copy a byte of it.
    pub exchange_byte: f64,
    /// To compare a pair of rows in a nested loop.
    pub pair: f64,
    /// To compare a row with another while sorting,
    pub compare_row: f64,
    /// and to copy a byte of it into its place.
    pub sort_byte: f64,
    /// To read a row of a table,
    pub scan_row: f64,
    /// and a byte of it.
    pub scan_byte: f64,
}

/// Rows of a hash table that the processor's caches hold.
const CACHED_ROWS: f64 = 32_768.0;

impl Default for ExecutionTime {
    fn default() -> Self {
        Self {
            build_row: 20.0,
            build_byte: 0.3,
            probe_row: 11.0,
            miss: 1.5,
            output_row: 2.2,
            output_byte: 0.2,
            exchange_row: 5.0,
            exchange_byte: 0.5,
            pair: 2.2,
            compare_row: 5.0,
            sort_byte: 2.3,
            scan_row: 0.0,
            scan_byte: 0.75,
        }
    }
}

impl CostModel for ExecutionTime {
    fn join(&self, method: JoinMethod, join: &JoinShape) -> f64 {
        let JoinShape { build, probe, output, .. } = *join;
        let partitions = join.partitions.max(1) as f64;
        let insert = build.rows * (self.build_row + self.build_byte * build.width);
        let gather = output.rows * (self.output_row + self.output_byte * output.width);
        let look_up = |table: f64| {
            probe.rows * self.probe_row + (probe.rows + output.rows) * self.miss * (table / CACHED_ROWS).max(1.0).log2()
        };
        let exchange = |side: JoinSide| side.rows * (self.exchange_row + self.exchange_byte * side.width);
        let sort =
            |side: JoinSide| side.rows * (side.rows.max(2.0).log2() * self.compare_row + self.sort_byte * side.width);
        match method {
            JoinMethod::BroadcastHash => insert + (look_up(build.rows) + gather) / partitions,
            JoinMethod::PartitionedHash => {
                (exchange(build) + exchange(probe) + insert + look_up(build.rows / partitions) + gather) / partitions
            }
            JoinMethod::SortMerge => {
                (exchange(build) + exchange(probe) + sort(build) + sort(probe) + gather) / partitions
            }
            JoinMethod::NestedLoop => {
                build.rows * self.build_byte * build.width + (build.rows * probe.rows * self.pair + gather) / partitions
            }
        }
    }

    fn scan(&self, output: JoinSide, partitions: usize) -> f64 {
        output.rows * (self.scan_row + self.scan_byte * output.width) / partitions.max(1) as f64
    }
}

/// `C_out`: the rows of the intermediate results, whatever joins them (Cluet and Moerkotte, "On the complexity of
/// generating optimal left-deep processing trees with cross products", ICDT 1995).
#[derive(Debug, Clone, Copy, Default)]
pub struct OutputCost;

impl CostModel for OutputCost {
    fn join(&self, _method: JoinMethod, join: &JoinShape) -> f64 {
        join.output.rows
    }

    fn scan(&self, output: JoinSide, _partitions: usize) -> f64 {
        output.rows
    }
}

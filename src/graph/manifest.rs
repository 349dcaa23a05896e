//! The manifest of a partitioned graph: what the graph is, how it was split, and which objects its parts are.
//!
//! JSON, so that people and other programs can read it. It is written after all parts, so a graph whose manifest
//! exists is complete.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::part::WrittenPart;
use super::partition::PARTS_MAX;
use super::{Balance, Graph, GraphError, Partitioner, Split};

/// The key of the manifest below the graph's prefix.
pub const MANIFEST_KEY: &str = "manifest.json";

/// What `format` says in each manifest.
pub const MANIFEST_FORMAT: &str = "lswitch-graph";

/// The version of the manifest, and of the parts that it names, that is written and read.
pub const MANIFEST_VERSION: u32 = 4;

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`MANIFEST_FORMAT`].
    pub format: String,
    /// The manifest's version, [`MANIFEST_VERSION`].
    pub version: u32,
    /// The id of this partitioned graph, new each time one is written.
    pub graph: String,
    /// What the graph was read from, in words for people.
    pub source: String,
    /// Number of vertices.
    pub vertices: u64,
    /// Number of edges, repeats and self loops counted.
    pub edges: u64,
    /// Vertices with no out-edge.
    pub dangling: u64,
    /// Edges from a vertex to itself.
    pub self_loops: u64,
    /// Each edge has its reverse, equally often.
    #[serde(default)]
    pub symmetric: bool,
    /// Edges have weights.
    #[serde(default)]
    pub weighted: bool,
    /// How the vertices were split.
    pub partitioner: Partitioner,
    /// What parts have equally much of.
    #[serde(default)]
    pub balance: Balance,
    /// As in [`crate::graph::partition::Quality::cut_edges`].
    pub cut_edges: u64,
    /// As in [`crate::graph::partition::Quality::boundary_values`].
    pub boundary_values: u64,
    /// As in [`crate::graph::partition::Quality::vertex_balance`].
    pub vertex_balance: f64,
    /// As in [`crate::graph::partition::Quality::edge_balance`].
    pub edge_balance: f64,
    /// The parts, in order of their numbers.
    pub parts: Vec<PartEntry>,
}

/// One part in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartEntry {
    /// The object's key below the graph's prefix.
    pub key: String,
    /// The object's length in bytes.
    pub bytes: u64,
    /// CRC32C of the whole object.
    pub crc32c: u32,
    /// Vertices of the part.
    pub vertices: u64,
    /// In-edges of the part.
    pub edges: u64,
    /// Values the part receives from other parts in each iteration.
    pub ghosts: u64,
}

impl PartEntry {
    /// The entry of a part that was written.
    pub fn of(key: impl Into<String>, part: &WrittenPart) -> PartEntry {
        PartEntry {
            key: key.into(),
            bytes: part.bytes,
            crc32c: part.crc32c,
            vertices: part.vertices,
            edges: part.edges,
            ghosts: part.ghosts,
        }
    }
}

impl Manifest {
    /// The manifest of a graph that was split so, into these parts.
    pub fn new(
        graph_id: impl Into<String>,
        source: impl Into<String>,
        graph: &Graph,
        split: &Split,
        parts: Vec<PartEntry>,
    ) -> Manifest {
        let quality = split.quality;
        Manifest {
            format: MANIFEST_FORMAT.to_owned(),
            version: MANIFEST_VERSION,
            graph: graph_id.into(),
            source: source.into(),
            vertices: graph.vertices(),
            edges: graph.edges(),
            dangling: graph.dangling(),
            self_loops: graph.self_loops(),
            symmetric: graph.symmetric,
            weighted: graph.in_weights.is_some(),
            partitioner: split.partitioner,
            balance: split.balance,
            cut_edges: quality.cut_edges,
            boundary_values: quality.boundary_values,
            vertex_balance: rounded(quality.vertex_balance),
            edge_balance: rounded(quality.edge_balance),
            parts,
        }
    }

    /// The manifest in these bytes, which messages call `name`.
    ///
    /// # Errors
    ///
    /// [`GraphError::Manifest`] for what is not JSON, not a graph's manifest, of a newer version, or contradicts
    /// itself.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Manifest, GraphError> {
        parse(bytes).map_err(|problem| GraphError::Manifest {
            name: name.to_owned(),
            problem,
        })
    }

    /// The manifest as JSON for people, with its checksum and a line end.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Written<'a> {
            #[serde(flatten)]
            manifest: &'a Manifest,
            crc32c: u32,
        }
        let written = Written {
            manifest: self,
            crc32c: self.checksum(),
        };
        let mut json = serde_json::to_string_pretty(&written).expect("its fields are plain values");
        json.push('\n');
        json
    }

    /// CRC32C of the manifest as compact JSON. It does not depend on white space or the order of fields, so that a tool
    /// may reformat a manifest; whoever changes a value must run preprocess.
    fn checksum(&self) -> u32 {
        let json = serde_json::to_vec(self).expect("its fields are plain values");
        crc32c::crc32c(&json)
    }

    fn check(&self) -> Result<(), String> {
        if self.parts.is_empty() || self.parts.len() > PARTS_MAX as usize {
            return Err(format!("it lists {} parts", self.parts.len()));
        }
        for (what, whole, of_part) in [
            (
                "vertices",
                self.vertices,
                (|part| part.vertices) as fn(&PartEntry) -> u64,
            ),
            ("edges", self.edges, |part| part.edges),
            ("boundary values", self.boundary_values, |part| part.ghosts),
        ] {
            let sum: u128 = self
                .parts
                .iter()
                .map(|part| u128::from(of_part(part)))
                .sum();
            if sum != u128::from(whole) {
                return Err(format!("it says {whole} {what}, and its parts have {sum}"));
            }
        }
        for (what, some, all) in [
            ("dangling vertices", self.dangling, self.vertices),
            ("self loops", self.self_loops, self.edges),
            ("cut edges", self.cut_edges, self.edges),
        ] {
            if some > all {
                return Err(format!("it says {some} {what} of {all}"));
            }
        }
        let mut keys = HashSet::new();
        for part in &self.parts {
            // A key from a file must not lead out of the graph's own prefix.
            let plain = part
                .key
                .split('/')
                .all(|step| !matches!(step, "" | "." | ".."));
            if !plain || part.key == MANIFEST_KEY {
                return Err(format!("{:?} is no key for a part", part.key));
            }
            if !keys.insert(&part.key) {
                return Err(format!("it lists the part {:?} twice", part.key));
            }
        }
        Ok(())
    }
}

/// A number for people with six decimals. So few digits are the same number for every parser of JSON, which the
/// manifest's checksum needs.
fn rounded(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

fn parse(bytes: &[u8]) -> Result<Manifest, String> {
    let again = "; run preprocess again";
    let not_ours = "not the manifest of an lswitch graph; name the folder that preprocess wrote";
    let json: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|cause| format!("not JSON ({cause}){again}"))?;
    if json.get("format").and_then(|format| format.as_str()) != Some(MANIFEST_FORMAT) {
        return Err(not_ours.to_owned());
    }
    match json.get("version").and_then(|version| version.as_u64()) {
        Some(version) if version > u64::from(MANIFEST_VERSION) => {
            return Err(format!(
                "made by a newer lswitch; its format is version {version}, and this one reads up to \
                 {MANIFEST_VERSION}: upgrade lswitch, or run preprocess again with this one"
            ));
        }
        Some(version) if version == u64::from(MANIFEST_VERSION) => {}
        Some(version @ 1..) => {
            return Err(format!(
                "made by an older lswitch, as format {version}{again}"
            ));
        }
        _ => return Err(format!("its version is missing or wrong{again}")),
    }
    let checksum = json.get("crc32c").and_then(|checksum| checksum.as_u64());
    let manifest: Manifest = serde_json::from_value(json)
        .map_err(|cause| format!("a damaged manifest: {cause}{again}"))?;
    manifest
        .check()
        .map_err(|problem| format!("a damaged manifest: {problem}{again}"))?;
    if checksum != Some(manifest.checksum().into()) {
        return Err(format!(
            "a damaged manifest: its values do not fit its checksum, so something has changed it since preprocess wrote it{again}"
        ));
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let entry = |key: &str, vertices| PartEntry {
            key: key.into(),
            bytes: 100,
            crc32c: 7,
            vertices,
            edges: 2,
            ghosts: 1,
        };
        Manifest {
            format: MANIFEST_FORMAT.into(),
            version: MANIFEST_VERSION,
            graph: "0123".into(),
            source: "g.txt".into(),
            vertices: 5,
            edges: 4,
            dangling: 1,
            self_loops: 0,
            symmetric: false,
            weighted: false,
            partitioner: Partitioner::Range,
            balance: Balance::Vertices,
            cut_edges: 2,
            boundary_values: 2,
            vertex_balance: 1.2,
            edge_balance: 1.0,
            parts: vec![entry("part-0", 3), entry("part-1", 2)],
        }
    }

    fn refusal(json: &str) -> String {
        Manifest::parse(json.as_bytes(), "m")
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_manifest_comes_back_from_its_json() {
        let json = manifest().to_json();
        assert!(json.contains("\"partitioner\": \"range\""));
        assert_eq!(Manifest::parse(json.as_bytes(), "m").unwrap(), manifest());
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_what_to_do() {
        assert!(refusal("{").starts_with("m: not JSON ("));
        let not_ours =
            "m: not the manifest of an lswitch graph; name the folder that preprocess wrote";
        assert_eq!(refusal("[]"), not_ours);
        assert_eq!(refusal("{\"format\": \"x\"}"), not_ours);
        let newer = manifest()
            .to_json()
            .replace("\"version\": 4", "\"version\": 5");
        assert!(refusal(&newer).starts_with("m: made by a newer lswitch; its format is version 5"));
        let older = manifest()
            .to_json()
            .replace("\"version\": 4", "\"version\": 3");
        let again = "m: made by an older lswitch, as format 3; run preprocess again";
        assert_eq!(refusal(&older), again);
        let missing = manifest().to_json().replace("\"edges\": 4,", "");
        assert!(refusal(&missing).contains("missing field `edges`"));
    }

    #[test]
    fn a_manifest_may_be_reformatted_and_not_changed() {
        let mut written = manifest();
        written.vertex_balance = rounded(8.0 / 7.0);
        written.edge_balance = rounded(1e6 / 3.0);
        let json: serde_json::Value = serde_json::from_str(&written.to_json()).unwrap();
        let compact = json.to_string();
        assert_eq!(Manifest::parse(compact.as_bytes(), "m").unwrap(), written);
        let changed: [fn(&mut serde_json::Value); 7] = [
            |json| json["symmetric"] = true.into(),
            |json| json["weighted"] = true.into(),
            |json| json["dangling"] = 2.into(),
            |json| json["graph"] = "0124".into(),
            |json| json["vertex_balance"] = 1.1.into(),
            |json| json["parts"].as_array_mut().unwrap().reverse(),
            |json| {
                json["vertices"] = 6.into();
                json["parts"][0]["vertices"] = 4.into();
            },
        ];
        for change in changed {
            let mut json = json.clone();
            change(&mut json);
            let refusal = refusal(&json.to_string());
            assert!(refusal.contains("do not fit its checksum"), "{refusal}");
        }
        for checksum in [serde_json::Value::Null, "1".into(), (-1).into()] {
            let mut json = json.clone();
            json["crc32c"] = checksum;
            assert!(refusal(&json.to_string()).contains("run preprocess again"));
        }
    }

    #[test]
    fn counts_that_contradict_each_other_are_refused() {
        let refusal = |change: fn(&mut Manifest)| {
            let mut changed = manifest();
            change(&mut changed);
            self::refusal(&changed.to_json())
        };
        assert_eq!(
            refusal(|m| m.vertices = 6),
            "m: a damaged manifest: it says 6 vertices, and its parts have 5; run preprocess again"
        );
        assert!(refusal(|m| m.edges = 3).contains("it says 3 edges"));
        assert!(refusal(|m| m.dangling = 6).contains("6 dangling vertices of 5"));
        assert!(refusal(|m| m.parts.clear()).contains("it lists 0 parts"));
        assert!(refusal(|m| m.parts[1].key = "part-0".into()).contains("twice"));
        for key in ["", "/etc/x", "../x", "a//b", "manifest.json"] {
            let mut changed = manifest();
            changed.parts[0].key = key.into();
            assert!(
                self::refusal(&changed.to_json()).contains("is no key"),
                "{key}"
            );
        }
    }
}

//! Documents as files: TOML, YAML or JSON, and where in the file something stands.

use super::CliError;
use clap::ValueEnum;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess},
    ser::SerializeMap,
};
use serde_json::Value;
use std::{fmt, io::Read, marker::PhantomData};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Toml,
    Yaml,
    Json,
}

/// The largest document that the daemon takes, bytes.
const MAX: u64 = 4 * 1024 * 1024;

/// A document as it was read.
#[derive(Debug)]
pub struct Source {
    /// As errors name it.
    pub name: String,
    text: String,
    format: Format,
    pub value: Value,
}

impl Format {
    fn of(path: &str) -> Option<Self> {
        match path.rsplit('.').next() {
            Some("toml") => Some(Self::Toml),
            Some("yaml" | "yml") => Some(Self::Yaml),
            Some("json") => Some(Self::Json),
            _ => None,
        }
    }

    /// What a text without a file's name is. YAML has no `[[…]]` or `key = value` at a line's beginning.
    fn guess(text: &str) -> Self {
        let mut lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
        match lines.next() {
            Some(line) if line.starts_with('{') => Self::Json,
            Some(line) if line.starts_with('[') => Self::Toml,
            Some(line) if line.split_once('=').is_some_and(|(key, _)| !key.contains(':')) => Self::Toml,
            Some(_) => Self::Yaml,
            None => Self::Toml,
        }
    }

    pub fn write(self, document: &Value) -> Result<String, CliError> {
        let ordered = Ordered(document);
        let failed = |error: &dyn fmt::Display| CliError::Failed(format!("the document cannot be written: {error}"));
        match self {
            Self::Toml => toml::to_string_pretty(&ordered).map_err(|error| failed(&error)),
            Self::Yaml => serde_saphyr::to_string(&ordered).map_err(|error| failed(&error)),
            Self::Json => {
                serde_json::to_string_pretty(&ordered).map(|text| text + "\n").map_err(|error| failed(&error))
            }
        }
    }
}

impl Source {
    /// A file, or standard input where it is `-`.
    pub fn read(path: &str, format: Option<Format>) -> Result<Self, CliError> {
        let name = if path == "-" { "standard input" } else { path };
        let unreadable = |error: std::io::Error| CliError::Usage(format!("{name}: {error}"));
        let mut bytes = Vec::new();
        if path == "-" {
            std::io::stdin().take(MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        } else {
            let file = std::fs::File::open(path).map_err(unreadable)?;
            file.take(MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        }
        if bytes.len() as u64 > MAX {
            return Err(CliError::Usage(format!("{name} is larger than {MAX} bytes; split it")));
        }
        let text = String::from_utf8(bytes).map_err(|_| CliError::Usage(format!("{name} is not UTF-8")))?;
        let format = format.or_else(|| Format::of(path)).unwrap_or_else(|| Format::guess(&text));
        Self::parse(name, text, format)
    }

    pub fn parse(name: &str, text: String, format: Format) -> Result<Self, CliError> {
        let refuse = |line: Option<u64>, why: String| {
            let place = line.map(|line| format!(":{line}")).unwrap_or_default();
            CliError::Usage(format!("{name}{place}: {}", why.trim()))
        };
        let value: Value = match format {
            Format::Toml => toml::from_str(&text).map_err(|error| {
                refuse(error.span().map(|span| line_at(&text, span.start)), error.message().to_owned())
            }),
            Format::Yaml => serde_saphyr::from_str(&text).map_err(|error| {
                let line = error.location().map(|location| location.line());
                let mut options = serde_saphyr::RenderOptions::default();
                options.snippets = serde_saphyr::SnippetMode::Off;
                refuse(line, error.render_with_options(options))
            }),
            Format::Json => {
                serde_json::from_str(&text).map_err(|error| refuse(Some(error.line() as u64), error.to_string()))
            }
        }?;
        let value = if value.is_null() { Value::Object(serde_json::Map::new()) } else { value };
        Ok(Self { name: name.to_owned(), text, format, value })
    }

    /// The daemon's refusal with the line in the file that it speaks of.
    pub fn placed(&self, text: &str) -> String {
        match text.split_once(": ").and_then(|(path, _)| self.line_of(path)) {
            Some(line) => format!("{}:{line}: {text}", self.name),
            None => format!("{}: {text}", self.name),
        }
    }

    /// The line of `ports[2].mac`, or of what of it is there.
    fn line_of(&self, path: &str) -> Option<u64> {
        let mut steps = Vec::new();
        for part in path.split('.') {
            let mut pieces = part.split('[');
            steps.push(Step::Key(pieces.next()?.to_owned()));
            for index in pieces {
                steps.push(Step::Index(index.strip_suffix(']')?.parse().ok()?));
            }
        }
        match self.format {
            Format::Toml => {
                let start = toml::from_str::<Node<TomlPlace>>(&self.text).ok()?.find(&steps)?;
                Some(line_at(&self.text, start as usize))
            }
            // JSON is YAML.
            Format::Yaml | Format::Json => serde_saphyr::from_str::<Node<YamlPlace>>(&self.text).ok()?.find(&steps),
        }
    }
}

fn line_at(text: &str, offset: usize) -> u64 {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() as u64 + 1
}

enum Step {
    Key(String),
    Index(usize),
}

/// How a format tells places.
trait Place: Sized {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(u64, Node<Self>), D::Error>;
}

/// Byte offsets.
#[derive(Debug)]
struct TomlPlace;
/// Lines.
#[derive(Debug)]
struct YamlPlace;

impl Place for TomlPlace {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(u64, Node<Self>), D::Error> {
        let spanned = toml::Spanned::<Node<Self>>::deserialize(deserializer)?;
        Ok((spanned.span().start as u64, spanned.into_inner()))
    }
}

impl Place for YamlPlace {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(u64, Node<Self>), D::Error> {
        let spanned = serde_saphyr::Spanned::<Node<Self>>::deserialize(deserializer)?;
        Ok((spanned.referenced.line(), spanned.value))
    }
}

/// A document's shape with places, without its values.
enum Node<P> {
    Map(Vec<(String, Placed<P>)>),
    List(Vec<Placed<P>>),
    Leaf(PhantomData<P>),
}

struct Placed<P>(u64, Node<P>);

impl<'de, P: Place> Deserialize<'de> for Placed<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        P::read(deserializer).map(|(at, node)| Placed(at, node))
    }
}

impl<P> Node<P> {
    fn find(&self, steps: &[Step]) -> Option<u64> {
        let [step, rest @ ..] = steps else { return None };
        let Placed(at, node) = match (self, step) {
            (Node::Map(entries), Step::Key(key)) => entries.iter().find(|(name, _)| name == key).map(|(_, at)| at)?,
            (Node::List(items), Step::Index(index)) => items.get(*index)?,
            _ => return None,
        };
        node.find(rest).or(Some(*at))
    }
}

impl<'de, P: Place> Deserialize<'de> for Node<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<P>(PhantomData<P>);
        impl<'de, P: Place> de::Visitor<'de> for Visitor<P> {
            type Value = Node<P>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a document")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Node<P>, E> {
                Ok(Node::Leaf(PhantomData))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Node<P>, E> {
                Ok(Node::Leaf(PhantomData))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Node<P>, E> {
                Ok(Node::Leaf(PhantomData))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Node<P>, E> {
                Ok(Node::Leaf(PhantomData))
            }

            fn visit_str<E>(self, _: &str) -> Result<Node<P>, E> {
                Ok(Node::Leaf(PhantomData))
            }

            fn visit_unit<E>(self) -> Result<Node<P>, E> {
                Ok(Node::Leaf(PhantomData))
            }

            fn visit_none<E>(self) -> Result<Node<P>, E> {
                Ok(Node::Leaf(PhantomData))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node<P>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node<P>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Map(entries))
            }
        }
        deserializer.deserialize_any(Visitor(PhantomData))
    }
}

/// A document in the order in which people read it: what is referred to first, names first.
struct Ordered<'a>(&'a Value);

const FIRST: &[&str] =
    &["address_groups", "security_groups", "networks", "subnets", "ports", "name", "network", "cidr", "mac", "rule"];

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(fields) => {
                let mut keys: Vec<&String> = fields.keys().collect();
                keys.sort_by_key(|key| FIRST.iter().position(|first| first == key).unwrap_or(FIRST.len()));
                let mut map = serializer.serialize_map(Some(keys.len()))?;
                for key in keys {
                    map.serialize_entry(key, &Ordered(&fields[key]))?;
                }
                map.end()
            }
            Value::Array(items) => serializer.collect_seq(items.iter().map(Ordered)),
            other => other.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn source(format: Format, text: &str) -> Source {
        Source::parse("lab", text.to_owned(), format).expect("valid")
    }

    #[test]
    fn places_are_found_in_every_format() {
        let toml = "# a lab\n[[networks]]\nname = \"lab\"\n\n[[ports]]\nname = \"a\"\nmac = \"x\"\n";
        let yaml = "networks:\n  - name: lab\n# a comment\nports:\n  - name: a\n    addresses: [1.2.3.4]\n    mac: 52:54:00:00:00:01\n";
        let json = "{\n \"networks\": [{\"name\": \"lab\"}],\n \"ports\": [\n  {\"name\": \"a\",\n   \"mac\": \"x\"}]}";
        for (format, text, ports, mac) in
            [(Format::Toml, toml, 5, 7), (Format::Yaml, yaml, 5, 7), (Format::Json, json, 4, 5)]
        {
            let source = source(format, text);
            assert_eq!(source.line_of("ports[0].mac"), Some(mac), "{format:?}");
            assert_eq!(source.line_of("ports[0].colour"), Some(ports), "{format:?}");
            assert_eq!(source.line_of("there is no network 'lab'"), None);
            assert_eq!(source.placed("ports[0].mac: bad"), format!("lab:{mac}: ports[0].mac: bad"));
        }
        assert_eq!(source(Format::Yaml, yaml).value["ports"][0]["mac"], json!("52:54:00:00:00:01"));
    }

    #[test]
    fn what_is_no_document_says_where() {
        for (format, text) in
            [(Format::Toml, "a = 1\nb = \n"), (Format::Json, "{\n\"a\": }"), (Format::Yaml, "a:\n  - b\n c: [")]
        {
            let error = Source::parse("lab", text.to_owned(), format).expect_err("refused").to_string();
            assert!(error.starts_with("lab:2: ") || error.starts_with("lab:3: "), "{format:?}: {error}");
        }
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f]\n";
        assert!(Source::parse("bomb", bomb.to_owned(), Format::Yaml).is_err(), "it has a limit");
    }

    #[test]
    fn formats_are_told_apart_and_say_the_same() {
        let value = json!({"networks": [{"name": "lab", "mtu": 1400, "dns_records": ["@ TXT \"a b\""]}],
            "subnets": [{"name": "lab", "network": "lab", "cidr": "10.0.0.0/24",
                "host_routes": [{"destination": "10.1.0.0/16", "next_hop": "10.0.0.9"}]}],
            "ports": [{"name": "1234", "network": "lab", "mac": "52:54:00:12:34:56", "addresses": []}]});
        for format in [Format::Toml, Format::Yaml, Format::Json] {
            let text = format.write(&value).expect("written");
            assert_eq!(Format::guess(&text), format, "{text}");
            assert_eq!(source(format, &text).value, value, "{text}");
        }
    }
}

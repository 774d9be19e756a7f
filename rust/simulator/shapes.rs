//! The networks and tensors that a configuration implies, and what is refused.
//!
//! # Tensors
//! For fields of sizes s_0, s_1, ..., W columns in all, W_f before field f, and A dimensions of an
//! action. A network's layers are numbered 0, 2, 4, ...
//!
//! | configuration | tensors |
//! |---|---|
//! | customers `mlp` | network `generator`: noise to W logits |
//! | customers `mixture` | `customers.shares` (K), `customers.fields` (K, W), probabilities |
//! | customers `rows` | `customers.rows` (n, fields), codes (U8) |
//! | customers `autoregressive` | `customers.0.bias` (s_0), networks `customers.f`: W_f to s_f |
//! | response `mlp` | network `action`: W + page + A to all heads |
//! | response `linear` | network `action`: W + page to all heads; `effect.weight` (A, W), \
//! `effect.bias` (A) |
//! | leave `once` | network `leave`: W to the page limits |
//! | leave `hazard` | none of its own: it adds to the response's heads |

use super::{Config, CustomerConfig, Field, Heads, LeaveConfig, ResponseKind, Schema};
use crate::error::{Error, Result};
use crate::tensor_file::Expected;

/// Actions of a larger magnitude are refused: with them, sums could overflow.
pub const LARGEST_ACTION: f32 = 1e6;
/// Most pages of a session whose end is drawn page by page: what a log can number.
pub const MOST_PAGES: usize = i16::MAX as usize;
/// Most rows of a bootstrap, and most components of a mixture.
const MOST_ROWS: usize = 1 << 24;
const MOST_COMPONENTS: usize = 1 << 14;
/// Most units of a layer.
const MOST_UNITS: usize = 16_384;

impl CustomerConfig {
    /// The networks of a sampler of such fields: name and layer sizes.
    pub(super) fn networks(&self, fields: &[Field]) -> Vec<(String, Vec<usize>)> {
        let width = |fields: &[Field]| fields.iter().map(|field| field.size).sum();
        match self {
            Self::Mlp { latent, hidden } => {
                vec![("generator".into(), [&[*latent][..], hidden, &[width(fields)]].concat())]
            }
            Self::Autoregressive { hidden } => (1..fields.len())
                .map(|index| {
                    let sizes =
                        [&[width(&fields[..index])][..], hidden, &[fields[index].size]].concat();
                    (format!("customers.{index}"), sizes)
                })
                .collect(),
            Self::Mixture { .. } | Self::Rows { .. } => Vec::new(),
        }
    }

    /// The tensors of a sampler of such fields.
    pub(super) fn tensors(&self, fields: &[Field]) -> Vec<Expected> {
        let width = fields.iter().map(|field| field.size).sum();
        let mut tensors = of_networks(&self.networks(fields));
        match self {
            Self::Mlp { .. } => {}
            Self::Mixture { components } => {
                tensors.push(Expected::floats("customers.shares", &[*components]));
                tensors.push(Expected::floats("customers.fields", &[*components, width]));
            }
            Self::Rows { rows } => tensors.push(Expected {
                codes: true,
                ..Expected::floats("customers.rows", &[*rows, fields.len()])
            }),
            Self::Autoregressive { .. } => {
                tensors.push(Expected::floats("customers.0.bias", &[fields[0].size]));
            }
        }
        tensors
    }

    /// Refuses fields and sizes that no sampler could have.
    pub(super) fn check(&self, fields: &[Field]) -> Result<()> {
        check_fields(fields)?;
        let count = |what: &str, most: usize, count: usize| match count {
            1.. if count <= most => Ok(()),
            _ => Err(Error::argument(what, format!("1 to {most}"), count)),
        };
        match self {
            Self::Mlp { .. } => {}
            Self::Mixture { components } => {
                count("customers.components", MOST_COMPONENTS, *components)?;
            }
            Self::Rows { rows } => count("customers.rows", MOST_ROWS, *rows)?,
            Self::Autoregressive { hidden } => {
                if hidden.len() != 1 {
                    let expected = "one hidden layer";
                    return Err(Error::argument("customers.hidden", expected, hidden.len()));
                }
                count("customers.hidden", MOST_UNITS, hidden[0])?;
            }
        }
        check_layers(&self.networks(fields))
    }
}

impl Config {
    /// Sizes of the response's heads.
    pub(super) fn heads(&self) -> Vec<usize> {
        match (self.response.heads, &self.leave) {
            (Heads::Outcome { .. }, _) => vec![3],
            (Heads::Clicks { clicks, second }, LeaveConfig::Once { .. }) => vec![clicks, second],
            (Heads::Clicks { clicks, second }, LeaveConfig::Hazard { .. }) => {
                vec![clicks, second, 2]
            }
        }
    }

    /// Whether an answer is a turn, a purchase or a leave, rather than clicks.
    pub fn answers_outcome(&self) -> bool {
        matches!(self.response.heads, Heads::Outcome { .. })
    }

    /// Whether leaving is drawn on every page, rather than a page limit once.
    pub fn ends_by_hazard(&self) -> bool {
        matches!(self.leave, LeaveConfig::Hazard { .. })
    }

    /// Items on a page: what the click-through rate divides by.
    pub fn page_items(&self) -> usize {
        match self.response.heads {
            Heads::Clicks { clicks, .. } => clicks - 1,
            Heads::Outcome { items } => items,
        }
    }

    /// Layer sizes of the answering network.
    pub(super) fn action_shape(&self, schema: &Schema) -> Vec<usize> {
        let action = match self.response.kind {
            ResponseKind::Mlp => schema.action,
            ResponseKind::Linear => 0,
        };
        let inputs = schema.customer_width() + 1 + action;
        let outputs = self.heads().iter().sum();
        [&[inputs][..], &self.response.hidden, &[outputs]].concat()
    }

    /// Layer sizes of the network of page limits, if there is one.
    pub(super) fn leave_shape(&self, schema: &Schema) -> Option<Vec<usize>> {
        match &self.leave {
            LeaveConfig::Once { classes, hidden } => {
                Some([&[schema.customer_width()][..], hidden, &[*classes]].concat())
            }
            LeaveConfig::Hazard { .. } => None,
        }
    }

    /// Name and layer sizes of every network.
    pub(super) fn networks(&self, schema: &Schema) -> Vec<(String, Vec<usize>)> {
        let mut networks = self.customers.networks(&schema.customer);
        networks.push(("action".into(), self.action_shape(schema)));
        networks.extend(self.leave_shape(schema).map(|shape| ("leave".into(), shape)));
        networks
    }

    /// Every tensor that a simulator of this shape has.
    pub(crate) fn tensors(&self, schema: &Schema) -> Vec<Expected> {
        let mut tensors = self.customers.tensors(&schema.customer);
        tensors.extend(of_networks(&[("action".into(), self.action_shape(schema))]));
        if self.response.kind == ResponseKind::Linear {
            let size = [schema.action, schema.customer_width()];
            tensors.push(Expected::floats("effect.weight", &size));
            tensors.push(Expected::floats("effect.bias", &size[..1]));
        }
        let leave = self.leave_shape(schema).map(|shape| ("leave".into(), shape));
        tensors.extend(of_networks(leave.as_slice()));
        tensors
    }

    /// Sizes and combinations that the rest of the crate relies on.
    pub(super) fn check(&self, schema: &Schema) -> Result<()> {
        self.customers.check(&schema.customer)?;
        let hazard = match &self.leave {
            LeaveConfig::Once { classes, .. } => {
                categories("leave.classes", *classes)?;
                false
            }
            LeaveConfig::Hazard { longest: 1..=MOST_PAGES } => true,
            LeaveConfig::Hazard { longest } => {
                let expected = format!("1 to {MOST_PAGES} pages");
                return Err(Error::argument("leave.longest", expected, longest));
            }
        };
        match self.response.heads {
            Heads::Clicks { clicks, second } => {
                categories("response.clicks", clicks)?;
                categories("response.second", second)?;
                if self.response.kind == ResponseKind::Linear {
                    let expected = "\"outcome\", whose buying a linear response moves";
                    return Err(Error::argument("response.heads", expected, "\"clicks\""));
                }
            }
            Heads::Outcome { items } => {
                if !(1..=256).contains(&items) {
                    return Err(Error::argument("response.items", "1 to 256 items", items));
                }
                if !hazard {
                    let expected = "\"hazard\", since the outcome says who leaves";
                    return Err(Error::argument("leave.kind", expected, "\"once\""));
                }
            }
        }
        schema.check()?;
        check_layers(&self.networks(schema))?;
        check_slope(self.slope)?;
        if !(0.0..=1e6).contains(&self.response.page_scale.abs()) {
            let got = self.response.page_scale;
            return Err(Error::argument("response.page_scale", "a number within +-1e6", got));
        }
        Ok(())
    }
}

impl Schema {
    /// Refuses customers and actions that no simulator could have.
    ///
    /// # Errors
    /// The first of them, with what was expected.
    pub fn check(&self) -> Result<()> {
        check_fields(&self.customer)?;
        if !(1..=MOST_UNITS).contains(&self.action) {
            let expected = format!("1 to {MOST_UNITS} dimensions");
            return Err(Error::argument("schema.action", expected, self.action));
        }
        let [low, high] = self.action_range;
        if !(low < high && low >= -LARGEST_ACTION && high <= LARGEST_ACTION) {
            let expected = format!("low < high within +-{LARGEST_ACTION:e}");
            let got = format!("[{low}, {high}]");
            return Err(Error::argument("schema.action_range", expected, got));
        }
        Ok(())
    }
}

fn check_fields(fields: &[Field]) -> Result<()> {
    if !(1..=256).contains(&fields.len()) {
        return Err(Error::argument("schema.customer", "1 to 256 fields", fields.len()));
    }
    fields
        .iter()
        .try_for_each(|one| categories(&format!("customer field {:?}", one.name), one.size))
}

/// Refuses a slope that is none.
pub(super) fn check_slope(slope: f32) -> Result<()> {
    if (0.0..1.0).contains(&slope) {
        return Ok(());
    }
    Err(Error::argument("slope", "a number in [0, 1)", slope))
}

fn categories(what: &str, size: usize) -> Result<()> {
    match size {
        2..=256 => Ok(()),
        _ => Err(Error::argument(what, "2 to 256 categories", size)),
    }
}

fn check_layers(networks: &[(String, Vec<usize>)]) -> Result<()> {
    for (model, shape) in networks {
        if shape.len() < 3 || shape.len() > 16 {
            let expected = "1 to 14 hidden layers";
            return Err(Error::argument(format!("{model}.hidden"), expected, shape.len() - 2));
        }
        if let Some(size) = shape.iter().find(|size| !(1..=MOST_UNITS).contains(*size)) {
            let expected = format!("layers of 1 to {MOST_UNITS} units");
            return Err(Error::argument(model.clone(), expected, size));
        }
    }
    Ok(())
}

/// Weight and bias of every layer.
fn of_networks(networks: &[(String, Vec<usize>)]) -> Vec<Expected> {
    let mut tensors = Vec::new();
    for (model, shape) in networks {
        for (index, pair) in shape.windows(2).enumerate() {
            let name = |what| format!("{model}.{}.{what}", 2 * index);
            tensors.push(Expected::floats(name("weight"), &[pair[1], pair[0]]));
            tensors.push(Expected::floats(name("bias"), &[pair[1]]));
        }
    }
    tensors
}

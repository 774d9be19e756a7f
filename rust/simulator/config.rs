//! What a simulator is made of, as its file's metadata say; `shapes` says which tensors that takes.

use serde::{Deserialize, Serialize};

/// How a session's customer is drawn; see [`super::Customers`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum CustomerConfig {
    /// A network from uniform noise in [0, 1) to one softmax a field.
    Mlp {
        /// Dimensions of the noise.
        latent: usize,
        /// Sizes of the hidden layers.
        hidden: Vec<usize>,
    },
    /// A component is drawn, then each field by itself. One component: independent fields.
    Mixture {
        /// Number of components.
        components: usize,
    },
    /// A row out of a table, each alike.
    Rows {
        /// Number of rows.
        rows: usize,
    },
    /// Each field from a network of the fields before it.
    Autoregressive {
        /// Size of the hidden layer of each of these networks: one number.
        hidden: Vec<usize>,
    },
}

/// How a session ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum LeaveConfig {
    /// A page limit drawn once, when the session starts, from the customer alone.
    Once {
        /// Limits are 0 to `classes - 1`; 0 also plays one page.
        classes: usize,
        /// Sizes of the hidden layers.
        hidden: Vec<usize>,
    },
    /// Whether the customer leaves is drawn on every page, from all that the answer is drawn from.
    Hazard {
        /// Pages of the longest session: one who turns the last of them finds no more.
        longest: usize,
    },
}

/// What is drawn of a page's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heads {
    /// Clicks and a second head; with [`LeaveConfig::Hazard`] also whether the customer leaves.
    Clicks {
        /// Categories of the first head: 0 to `clicks - 1` clicks.
        clicks: usize,
        /// Categories of the second head (in VirtualTB-v0 probably purchases).
        second: usize,
    },
    /// Whether the customer turns the page, buys, or leaves: codes of [`crate::logs::OUTCOMES`].
    Outcome {
        /// Items on a page, which only the click-through rate needs.
        items: usize,
    },
}

/// How an answer depends on the action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseKind {
    /// It enters the network with everything else.
    Mlp,
    /// The network sees customer and page; buying gets (W x + v) a on top of its logit.
    Linear,
}

/// How a page is answered: from customer, page and action, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ResponseJson", into = "ResponseJson")]
pub struct ResponseConfig {
    /// How the action enters.
    pub kind: ResponseKind,
    /// What is drawn.
    pub heads: Heads,
    /// The page number is multiplied by this before it enters.
    pub page_scale: f32,
    /// Sizes of the hidden layers.
    pub hidden: Vec<usize>,
}

/// The form in files. What is not there has the value that the first simulators had.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResponseJson {
    page_scale: f32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clicks: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    second: Option<usize>,
    hidden: Vec<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    heads: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    items: Option<usize>,
}

impl TryFrom<ResponseJson> for ResponseConfig {
    type Error = String;

    fn try_from(json: ResponseJson) -> std::result::Result<Self, String> {
        let kind = match json.kind.as_deref() {
            None | Some("mlp") => ResponseKind::Mlp,
            Some("linear") => ResponseKind::Linear,
            Some(other) => {
                return Err(format!("response.kind: expected mlp or linear, got {other:?}"));
            }
        };
        let heads = match (json.heads.as_deref(), json.clicks, json.second, json.items) {
            (None | Some("clicks"), Some(clicks), Some(second), None) => {
                Heads::Clicks { clicks, second }
            }
            (Some("outcome"), None, None, Some(items)) => Heads::Outcome { items },
            (heads @ (None | Some("clicks" | "outcome")), ..) => {
                let heads = heads.unwrap_or("clicks");
                return Err(format!(
                    "response: expected the sizes clicks and second for heads \"clicks\", items for \
                     heads \"outcome\", got others for {heads:?}"
                ));
            }
            (Some(other), ..) => {
                return Err(format!("response.heads: expected clicks or outcome, got {other:?}"));
            }
        };
        Ok(Self { kind, heads, page_scale: json.page_scale, hidden: json.hidden })
    }
}

impl From<ResponseConfig> for ResponseJson {
    fn from(config: ResponseConfig) -> Self {
        let (clicks, second, items) = match config.heads {
            Heads::Clicks { clicks, second } => (Some(clicks), Some(second), None),
            Heads::Outcome { items } => (None, None, Some(items)),
        };
        let linear = config.kind == ResponseKind::Linear;
        Self {
            page_scale: config.page_scale,
            clicks,
            second,
            hidden: config.hidden,
            kind: linear.then(|| "linear".into()),
            heads: items.map(|_| "outcome".into()),
            items,
        }
    }
}

/// The networks' shapes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Sampler of customers.
    pub customers: CustomerConfig,
    /// Answers to pages.
    pub response: ResponseConfig,
    /// End of sessions.
    pub leave: LeaveConfig,
    /// Slope of the leaky ReLU between layers.
    pub slope: f32,
}

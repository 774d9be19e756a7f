//! What customers and actions look like.

use serde::{Deserialize, Serialize};

/// One categorical field of a customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Column name in logs.
    pub name: String,
    /// Number of categories, 2 to 256.
    pub size: usize,
}

/// What customers and actions look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// The customer's fields, in the order of the one-hot columns.
    pub customer: Vec<Field>,
    /// Dimensions of the action.
    pub action: usize,
    /// Lowest and highest value of each dimension of the action.
    pub action_range: [f32; 2],
}

impl Schema {
    /// Columns of the one-hot customer.
    pub fn customer_width(&self) -> usize {
        self.customer.iter().map(|field| field.size).sum()
    }

    /// Columns of an observation: customer, last clicks, last second head, page.
    pub fn observation_width(&self) -> usize {
        self.customer_width() + 3
    }

    /// Categories of each field.
    pub fn sizes(&self) -> Vec<usize> {
        self.customer.iter().map(|field| field.size).collect()
    }
}

//! A provider of OAuth 1.0a (RFC 5849): what its registration has instead of OAuth 2.0's.

use super::endpoint::EndpointUrl;
use crate::attach::oauth1::Consumer;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq)]
pub struct OAuth1 {
    /// Shared with the attach schemes that sign by it.
    pub consumer: Arc<Consumer>,
    /// Where a connection begins. `None`: it takes imported tokens alone.
    pub request_token_url: Option<EndpointUrl>,
    /// Whether the provider says `oauth_callback_confirmed=true`, as the revised protocol has it (RFC 5849 §2.1).
    pub confirms_callback: bool,
}

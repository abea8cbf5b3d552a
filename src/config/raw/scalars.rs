//! Scalars whose schema is written out, because a variable (`${NAME}`) may stand where a number or truth value is expected.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// One scalar type and its schema, inlined wherever it is used.
macro_rules! scalar {
    ($name:ident, $schema:tt) => {
        pub(super) struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

scalar!(Text, {"type": ["string", "number", "boolean"]});
scalar!(Flag, {"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(Count, {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(Share, {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(Span, {"anyOf": [{"type": "string", "pattern": "^\\s*([0-9]+\\s*[a-zA-Z]+\\s*)+$|\\$\\{"}, {"const": 0}], "examples": ["500ms", "30s", "5m", "1h"]});
scalar!(Limit, {"anyOf": [{"type": "string", "pattern": "^\\s*([0-9]+\\s*[a-zA-Z]+\\s*)+$|^none$|\\$\\{"}, {"const": 0}], "examples": ["60s", "none"]});
scalar!(Lifetime, {"anyOf": [{"type": "string", "pattern": "^\\s*([0-9]+\\s*[a-zA-Z]+\\s*)+$|^never$|\\$\\{"}, {"const": 0}], "examples": ["1h", "never"]});
scalar!(Size, {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+\\s*([kKmMgG][iI]?)?[bB]?$|\\$\\{"}], "examples": ["64KiB", "10MB"]});
scalar!(SizeOrNone, {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+\\s*([kKmMgG][iI]?)?[bB]?$|^none$|\\$\\{"}]});
scalar!(Url, {"type": "string", "pattern": "^[hH][tT][tT][pP][sS]?://|\\$\\{"});
scalar!(UrlOrNone, {"type": "string", "pattern": "^[hH][tT][tT][pP][sS]?://|^none$|\\$\\{"});
scalar!(NoCall, {"const": "none"});
scalar!(Image, {"type": "string", "examples": ["./logo.svg", "https://printpixie.example/logo.svg"]});
scalar!(Address, {"type": "string", "examples": ["127.0.0.1:7070", "[::1]:7070", "unix:./attache.sock"]});
scalar!(Health, {"anyOf": [{"enum": ["off", false]}, {"type": "string"}, {"$ref": "#/$defs/ListenerKeys"}]});
scalar!(Colour, {"type": "string", "pattern": "^#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$|\\$\\{"});
scalar!(KeyHash, {"type": "string", "pattern": "^[0-9a-fA-F]{64}$|\\$\\{"});
scalar!(Pkce, {"anyOf": [{"enum": ["S256", "S256_hex", "plain", "none"]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(ClientAuth, {"anyOf": [{"enum": ["basic", "basic_raw", "body", "none", "private_key_jwt", "secret_jwt", "mtls"]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(PublicClient, {"anyOf": [{"enum": ["none", "basic"]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(RenewBy, {"anyOf": [{"enum": ["refresh_token", "access_token"]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(Method, {"anyOf": [{"enum": ["GET", "POST", "PUT", "PATCH", "DELETE"]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(BodyFormat, {"anyOf": [{"enum": ["form", "json", "none"]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(Unit, {"anyOf": [{"enum": ["s", "ms", "min"]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(StateRule, {"anyOf": [{"enum": ["required", "cookie", "cookie_on_error"]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(ValueKind, {"anyOf": [{"enum": ["text", "label", "host", "origin"]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(Credential, {"anyOf": [{"enum": ["consent", "api_key", "password"]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(KeyAlgorithm, {"anyOf": [{"enum": ["RS256", "ES256", "ES384", "EdDSA", "PS256", "RS384", "RS512", "PS384", "PS512"]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(RateText, {"type": "string", "pattern": "^\\s*[0-9]+\\s*/\\s*([0-9]+\\s*[a-zA-Z]+|[a-zA-Z]+)\\s*$|\\$\\{", "examples": ["10/s", "100/m", "1000/h", "50/30s"]});
scalar!(JwtAlgorithm, {"anyOf": [{"enum": ["ES256", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA", "HS256", "HS384", "HS512"]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(Verified, {"enum": ["full", "partial"]});
scalar!(ActAs, {"anyOf": [{"enum": ["user", "app", "none"]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(Cookies, {"anyOf": [{"enum": ["strip", "pass"]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(AttachWord, {"anyOf": [{"enum": ["bearer", "basic", "oauth1", "dpop"]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(OAuth1Signature, {"anyOf": [{"enum": ["HMAC-SHA1", "HMAC-SHA256", "RSA-SHA1", "PLAINTEXT"]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(Follow, {"anyOf": [{"enum": ["no", "no_token", false]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(Anything, {});
scalar!(False, {"const": false});
scalar!(Off, {"enum": ["off", false]});
scalar!(RetryWord, {"anyOf": [{"enum": ["connect", "reset", "timeout"]}, {"type": "string", "pattern": "\\$\\{"}]});
scalar!(Allow, {"enum": ["connect", "read", "write", "tokens"]});
scalar!(Category, {"type": "string", "examples": ["storage", "photos", "productivity", "social", "identity", "finance", "media", "crm", "development", "communication", "gaming", "marketing", "ecommerce", "design", "fitness", "travel", "maps", "other"]});

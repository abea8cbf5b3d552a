//! `api`: what every API call carries besides the token.

use super::places::{OF_API, Places};
use crate::attach::{Place, Scheme};
use crate::config::fields::{Fields, Shape};
use crate::provider::Companions;

const API: Shape = Shape { name: "Api", said: "`api`" };

pub(super) fn read(fields: &Fields<'_>, places: &Places, attach: Option<&Scheme>) -> Companions {
    let Some(fields) = fields.section("api", API) else { return Companions::default() };
    let companions = Companions {
        set_headers: places.headers(&fields, "set_headers", OF_API),
        headers: places.headers(&fields, "headers", OF_API),
        set_query: places.params(&fields, "set_query", OF_API),
        query: places.params(&fields, "query", OF_API),
    };
    let token_place = attach.unwrap_or(&Scheme::Bearer).place();
    for key in ["set_headers", "headers"] {
        for (header, _) in fields.pairs(key) {
            if matches!(&token_place, Place::Header(name) if header.text.eq_ignore_ascii_case(name.as_str())) {
                fields.say(&header.at, format!("`{key}` cannot touch `{}`: the token stands there", header.text), None);
            }
        }
    }
    fields.finish();
    companions
}

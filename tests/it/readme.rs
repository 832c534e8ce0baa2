//! What the README says of the providers is what the drivers say.

use std::fmt::Write as _;

use gitmoor::domain::credential::{CapabilityType, CredentialKind};
use gitmoor::provider::{About, Providers};

/// The table as the drivers have it.
fn table() -> String {
    let mut table = String::from(
        "| provider | id | credentials | to list | to read code | for webhooks | lowest version | tells scopes | tells the end \
         | rows a page | calls at once |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for provider in Providers::builtin().iter() {
        let about = provider.about();
        let scopes = |capability| scopes(about, capability);
        let floor = match about.minimum_server_version {
            "" => "-",
            floor => floor,
        };
        writeln!(
            table,
            "| {} | `{}` | {} | {} | {} | {} | {floor} | {} | {} | {} | {} |",
            about.title,
            about.id,
            credentials(about),
            scopes(CapabilityType::ListRepositories),
            scopes(CapabilityType::ReadCode),
            scopes(CapabilityType::ManageWebhooks),
            yes(about.tells_scopes),
            yes(about.tells_expiry),
            about.max_page_size,
            about.concurrency,
        )
        .expect("a text grows");
    }
    table
}

fn credentials(about: &About) -> String {
    let kinds = about.credential_kinds.iter().map(|kind| match kind.kind {
        CredentialKind::PersonalAccessToken => "`personal_access_token`",
        CredentialKind::EmailApiToken => "`email_api_token`",
        CredentialKind::ResourceToken => "`resource_token`",
    });
    kinds.collect::<Vec<_>>().join(", ")
}

fn scopes(about: &About, capability: CapabilityType) -> String {
    let found = about.capability_scopes.iter().find(|(of, _)| *of == capability);
    let scopes = found.map_or(&[][..], |(_, scopes)| scopes);
    scopes.iter().map(|scope| format!("`{scope}`")).collect::<Vec<_>>().join(", ")
}

const fn yes(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

#[test]
fn the_table_of_providers_is_what_the_drivers_say() {
    let readme = include_str!("../../README.md");
    let table = table();
    assert!(readme.contains(&table), "the README's table of providers should be:\n\n{table}");
}

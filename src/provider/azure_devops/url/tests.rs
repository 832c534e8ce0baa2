//! Every form of address, and what it stands for.

use super::*;

fn scope(organization: &str, collection: &str) -> Scope {
    Scope { organization: organization.into(), collection: collection.into(), ..Scope::default() }
}

fn urls(text: &str, scope: &Scope) -> Vec<String> {
    let base_url = (!text.is_empty()).then(|| BaseUrl::parse(text).expect("a URL"));
    let found = endpoints(base_url.as_ref(), scope).expect(text);
    found.into_iter().map(|endpoint| endpoint.api_url.to_string()).collect()
}

fn refusal(text: &str, scope: &Scope) -> (String, FieldReason) {
    let base_url = (!text.is_empty()).then(|| BaseUrl::parse(text).expect("a URL"));
    let violation = endpoints(base_url.as_ref(), scope).expect_err(text).remove(0);
    (violation.field, violation.reason)
}

#[test]
fn ac_08_every_way_to_type_an_organization_is_one_instance() {
    let none = Scope::default();
    for typed in [
        "https://dev.azure.com/Fabrikam",
        "https://dev.azure.com/fabrikam/",
        "https://dev.azure.com/fabrikam/My%20Project",
        "https://dev.azure.com/fabrikam/My%20Project/_git/repo",
        "https://dev.azure.com/fabrikam/_git/repo",
        "https://dev.azure.com/fabrikam/_apis/projects",
        "https://fabrikam.visualstudio.com",
        "https://fabrikam.visualstudio.com/DefaultCollection",
        "https://Fabrikam.VisualStudio.com/DefaultCollection/My%20Project/_git/repo",
    ] {
        assert_eq!(urls(typed, &none), ["https://dev.azure.com/fabrikam"], "{typed}");
    }
    assert_eq!(urls("", &scope("Fabrikam", "")), ["https://dev.azure.com/fabrikam"]);
    assert_eq!(urls("https://dev.azure.com", &scope("fabrikam", "")), ["https://dev.azure.com/fabrikam"]);
    assert_eq!(
        urls("https://dev.azure.com/fabrikam", &scope("FABRIKAM", "")),
        ["https://dev.azure.com/fabrikam"]
    );
}

#[test]
fn there_is_no_instance_without_an_organization() {
    let none = Scope::default();
    for typed in ["", "https://dev.azure.com", "https://dev.azure.com/_git/repo"] {
        assert_eq!(refusal(typed, &none), (ORGANIZATION.into(), FieldReason::Required), "{typed}");
    }
    let violation = endpoints(None, &none).expect_err("none").remove(0);
    assert!(violation.description.contains("https://dev.azure.com/fabrikam"));
    assert_eq!(
        refusal("https://dev.azure.com/fabrikam", &scope("contoso", "")),
        (ORGANIZATION.into(), FieldReason::Conflicting)
    );
    assert_eq!(
        refusal("https://dev.azure.com/fabrikam", &scope("", "DefaultCollection")),
        (COLLECTION.into(), FieldReason::Conflicting)
    );
    assert_eq!(refusal("", &scope("a b", "")), (ORGANIZATION.into(), FieldReason::Malformed));
}

#[test]
fn ac_12_a_server_path_holds_prefix_and_collection_once() {
    let want = ["https://ado.corp.test:8443/tfs/DefaultCollection"];
    for (typed, collection) in [
        ("https://ado.corp.test:8443/tfs/DefaultCollection", ""),
        ("https://ado.corp.test:8443/tfs/DefaultCollection/", ""),
        ("https://ado.corp.test:8443/tfs/DefaultCollection/Project/_git/repo", ""),
        ("https://ado.corp.test:8443/tfs/DefaultCollection/_apis", ""),
        ("https://ado.corp.test:8443/tfs", "DefaultCollection"),
        ("https://ado.corp.test:8443/tfs/", "tfs/DefaultCollection"),
        ("https://ado.corp.test:8443", "tfs/DefaultCollection"),
        ("https://ado.corp.test:8443", "/tfs/DefaultCollection/"),
        ("https://ado.corp.test:8443/tfs/DefaultCollection", "tfs/DefaultCollection"),
        ("https://ado.corp.test:8443/tfs/DefaultCollection/Project", "DefaultCollection"),
        ("https://ado.corp.test:8443/tfs/DefaultCollection/Project", "defaultcollection"),
    ] {
        assert_eq!(urls(typed, &scope("", collection)), want, "{typed} {collection}");
    }
}

#[test]
fn a_collection_that_only_the_url_tells_is_guessed_longest_first() {
    let none = Scope::default();
    assert_eq!(urls("https://ado/tfs/Sales/Project", &none), ["https://ado/tfs/Sales"]);
    assert_eq!(
        urls("https://ado/devops/Sales/My%20Project/_git/x", &none),
        ["https://ado/devops/Sales/My%20Project", "https://ado/devops/Sales", "https://ado/devops"]
    );
    assert_eq!(urls("https://gateway/azure", &scope("contoso", "")), ["https://gateway/azure/contoso"]);
    for typed in ["https://ado", "https://ado/tfs", "https://ado/tfs/_git/x"] {
        assert_eq!(refusal(typed, &none), (COLLECTION.into(), FieldReason::Required), "{typed}");
    }
    assert_eq!(
        refusal("https://ado/tfs/Sales", &scope("", "Other")),
        (COLLECTION.into(), FieldReason::Conflicting)
    );
    assert_eq!(refusal("https://ado/tfs", &scope("a", "b")), (ORGANIZATION.into(), FieldReason::Conflicting));
}

#[test]
fn what_the_provider_does_not_have_in_a_scope_is_refused() {
    let mut scope = scope("fabrikam", "");
    scope.workspaces = vec!["w".into()];
    scope.projects = vec!["Good One".into(), "a/b".into(), "..".into()];
    let violations = endpoints(None, &scope).expect_err("refused");
    let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(
        fields,
        ["connection.scope.workspaces", "connection.scope.projects[1]", "connection.scope.projects[2]"]
    );
    assert_eq!(violations[0].reason, FieldReason::UnsupportedForProvider);
}

#[test]
fn a_copied_clone_link_becomes_the_url_of_its_organization() {
    for text in [
        "https://fabrikam@dev.azure.com/fabrikam/My%20Project/_git/repo",
        "https://fabrikam@dev.azure.com/fabrikam",
        "git@ssh.dev.azure.com:v3/fabrikam/My%20Project/repo",
        "ssh://git@ssh.dev.azure.com:22/v3/fabrikam/project/repo",
        "fabrikam@vs-ssh.visualstudio.com:v3/fabrikam/project/repo",
    ] {
        assert_eq!(pasted(text).as_deref(), Some("https://dev.azure.com/fabrikam"), "{text}");
    }
}

#[test]
fn u09_other_user_info_stays_for_the_strict_check() {
    for text in [
        "https://dev.azure.com@evil.test/",
        "https://fabrikam@evil.test/fabrikam",
        "https://someone@dev.azure.com/fabrikam",
        "https://fabrikam:secret@dev.azure.com/fabrikam",
        "https://fabrikam@dev.azure.com.evil.test/fabrikam",
        "git@ssh.dev.azure.com.evil.test:v3/fabrikam/p/r",
        "https://dev.azure.com/fabrikam",
    ] {
        assert_eq!(pasted(text), None, "{text}");
    }
}

#[test]
fn u12_u13_u51_u52_nothing_hides_behind_a_text_that_is_rewritten() {
    let long = format!("https://fabrikam@dev.azure.com/fabrikam/{}", "a".repeat(MAX_URL_BYTES));
    for text in [
        "ssh://me:hunter2@ssh.dev.azure.com/v3/fabrikam/p/r",
        "ssh://git:hunter2@ssh.dev.azure.com/v3/fabrikam/p/r",
        "ssh://fabrikam:@ssh.dev.azure.com/v3/fabrikam/p/r",
        "someone@vs-ssh.visualstudio.com:v3/fabrikam/p/r",
        "https://git@dev.azure.com/fabrikam/p/_git/r",
        "https://fabrikam@dev.azure.com/fabrikam/\r\nX: 1",
        "https://fabrikam@dev.azure.com/fabrikam/p\0",
        "https://fabrikam@dev.azure.com/fabrikam/a project",
        "https://fabrikam@dev.azure.com/fabrikam/p?version=GBmain",
        "https://fabrikam@dev.azure.com/fabrikam/p#readme",
        "https://fabrikam@dev.azure.com/fabrikam\\p",
        "https://fabrikam@dev.azure.com/fabrikam/../other",
        "https://fabrikam@dev.azure.com/fabrikam/%0d%0aX",
        "git@ssh.dev.azure.com:v3/fabrikam/p/r?x#y",
        "git@ssh.dev.azure.com:v3/fabrikam/p/r\n",
        &long,
    ] {
        assert_eq!(pasted(text), None, "{text:?}");
        assert!(BaseUrl::parse(text).is_err(), "{text:?}");
    }
}

fn target(base: &str, clone_url: &str) -> Option<(String, String)> {
    clone_target(&Url::parse(base).expect("a URL"), clone_url)
}

#[test]
fn every_form_of_clone_url_names_project_and_repository() {
    let want = |project: &str, name: &str| Some((project.to_owned(), name.to_owned()));
    let cloud = "https://dev.azure.com/fabrikam";
    for (text, project, name) in [
        ("https://dev.azure.com/fabrikam/My%20Project/_git/repo", "My Project", "repo"),
        ("https://fabrikam@dev.azure.com/Fabrikam/p/_git/sub%20name", "p", "sub name"),
        ("https://dev.azure.com/fabrikam/_git/alike", "alike", "alike"),
        ("https://dev.azure.com/fabrikam/p/_git/_full/repo", "p", "repo"),
        ("https://dev.azure.com/fabrikam/p/_git/ends.git", "p", "ends.git"),
        ("https://fabrikam.visualstudio.com/p/_git/repo", "p", "repo"),
        ("https://fabrikam.visualstudio.com/DefaultCollection/p/_git/repo", "p", "repo"),
        ("https://fabrikam.visualstudio.com/_git/alike", "alike", "alike"),
        ("git@ssh.dev.azure.com:v3/fabrikam/My%20Project/repo", "My Project", "repo"),
        ("fabrikam@vs-ssh.visualstudio.com:v3/fabrikam/p/repo", "p", "repo"),
    ] {
        assert_eq!(target(cloud, text), want(project, name), "{text}");
    }
    let server = "https://ado.corp.test:8443/tfs/DefaultCollection";
    for text in [
        "https://ado.corp.test:8443/tfs/DefaultCollection/p/_git/repo",
        "https://me@ado.corp.test:8443/tfs/defaultcollection/p/_git/repo",
        "ssh://ado.corp.test:22/tfs/DefaultCollection/p/_ssh/repo",
        "ssh://git@ado.corp.test/tfs/DefaultCollection/p/_git/repo",
    ] {
        assert_eq!(target(server, text), want("p", "repo"), "{text}");
    }
}

#[test]
fn a_clone_url_of_another_place_names_nothing() {
    for (base, text) in [
        ("https://dev.azure.com/fabrikam", "https://dev.azure.com/contoso/p/_git/r"),
        ("https://dev.azure.com/fabrikam", "https://contoso.visualstudio.com/p/_git/r"),
        ("https://dev.azure.com/fabrikam", "git@ssh.dev.azure.com:v3/contoso/p/r"),
        ("https://dev.azure.com/fabrikam", "https://evil.test/fabrikam/p/_git/r"),
        ("https://dev.azure.com/fabrikam", "https://dev.azure.com/fabrikam/p"),
        ("https://dev.azure.com/fabrikam", "https://dev.azure.com/fabrikam/p/_git/%2e%2e"),
        ("https://ado.test/tfs/A", "https://ado.test/tfs/B/p/_git/r"),
        ("https://ado.test/tfs/A", "https://ado.test:8443/tfs/A/p/_git/r"),
        ("https://ado.test/tfs/A", "https://dev.azure.com/A/p/_git/r"),
        ("https://ado.test/tfs/A", "no URL"),
    ] {
        assert_eq!(target(base, text), None, "{base} {text}");
    }
}

#[test]
fn links_lose_user_info_and_go_through_the_gateway() {
    let clean = |base: &str, link: &str| {
        let base = Url::parse(base).expect("a URL");
        let link = cleaned(&base, link)?;
        Some((link.to_string(), is_foreign(&base, &link)))
    };
    let link = "https://fabrikam@dev.azure.com/fabrikam/sg%20test%20with%20many%20%20spaces/_git/r";
    let path = "/fabrikam/sg%20test%20with%20many%20%20spaces/_git/r";
    assert_eq!(
        clean("https://dev.azure.com/fabrikam", link),
        Some((format!("https://dev.azure.com{path}"), false))
    );
    assert_eq!(
        clean("https://gateway.test/azure/fabrikam", link),
        Some((format!("https://gateway.test/azure{path}"), false))
    );
    assert_eq!(
        clean("https://dev.azure.com/fabrikam", "https://fabrikam.visualstudio.com/p/_git/r"),
        Some(("https://fabrikam.visualstudio.com/p/_git/r".into(), false))
    );
    assert_eq!(
        clean("https://ado.test/tfs/A", "http://localhost:8080/tfs/A/p/_git/r"),
        Some(("http://localhost:8080/tfs/A/p/_git/r".into(), true))
    );
    assert_eq!(clean("https://ado.test/tfs/A", "javascript:alert(1)"), None);
}

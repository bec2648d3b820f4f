//! Folders whose files are served, with ranges and conditional requests; nothing outside of a folder is. It must not know
//! routes, which go before files.

use std::path::PathBuf;

use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Uri};
use tower::ServiceExt as _;
use tower_http::services::{ServeDir, ServeFile};

use crate::body::Body;
use crate::config::StaticFiles;

/// All folders, the longest path first.
#[derive(Debug)]
pub(crate) struct Files {
    folders: Vec<Folder>,
}

#[derive(Debug)]
struct Folder {
    prefix: String,
    files: ServeDir,
    fallback: Option<PathBuf>,
    cache_control: Option<HeaderValue>,
}

impl Files {
    pub(crate) fn new(settings: &[StaticFiles]) -> Self {
        let mut folders: Vec<Folder> = settings.iter().map(Folder::new).collect();
        folders.sort_by_key(|folder| std::cmp::Reverse(folder.prefix.len()));
        Self { folders }
    }

    /// The file at a path, if there is one.
    pub(crate) async fn answer(&self, parts: &Parts) -> Option<Response<Body>> {
        for folder in &self.folders {
            let Some(behind) = parts.uri.path().strip_prefix(folder.prefix.as_str()) else { continue };
            if !behind.is_empty() && !behind.starts_with('/') {
                continue;
            }
            if let Some(response) = folder.answer(parts, behind).await {
                return Some(response);
            }
        }
        None
    }
}

impl Folder {
    fn new(settings: &StaticFiles) -> Self {
        let mut files = ServeDir::new(&settings.folder);
        if settings.precompressed {
            files = files.precompressed_br().precompressed_gzip().precompressed_zstd();
        }
        Self {
            prefix: settings.path.trim_end_matches('/').to_owned(),
            files,
            fallback: settings.fallback.as_ref().map(|file| settings.folder.join(file)),
            cache_control: settings.cache_control.as_ref().and_then(|text| HeaderValue::from_str(text).ok()),
        }
    }

    async fn answer(&self, parts: &Parts, behind: &str) -> Option<Response<Body>> {
        let path = if behind.is_empty() { "/" } else { behind };
        let mut request = Request::new(());
        *request.method_mut() = parts.method.clone();
        *request.headers_mut() = parts.headers.clone();
        *request.uri_mut() = path.parse::<Uri>().ok()?;
        let found = self.files.clone().oneshot(request).await.ok()?;
        let mut response = match (found.status(), &self.fallback) {
            (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, Some(file)) => {
                let mut request = Request::new(());
                *request.method_mut() = parts.method.clone();
                ServeFile::new(file).oneshot(request).await.ok()?.map(Body::streamed)
            }
            (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, None) => return None,
            _ => found.map(Body::streamed),
        };
        if response.status() == StatusCode::NOT_FOUND {
            return None;
        }
        let headers = response.headers_mut();
        // A file is what its name says; a browser that guesses otherwise may run it.
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        if let Some(value) = &self.cache_control {
            headers.insert(CACHE_CONTROL, value.clone());
        }
        Some(response)
    }
}

//! The form of what crosses into Python: small frozen classes that hold facts and do nothing.

use std::convert::Infallible;

use pyo3::prelude::*;
use pyo3::types::PyInt;

/// A class whose attributes are the fields. With `ordered` a pattern of `match` may leave out their names;
/// what will get more fields is not ordered.
///
/// Python reads a field of the type `Py<…>` where it lies, as fast as a slot of its own; any other is
/// converted at each reading. So what every run passes holds `Py<…>`, and what people look at need not.
macro_rules! record {
    (ordered $(#[$doc:meta])* $name:ident $fields:tt) => {
        record! {
            $(#[$doc])* $name $fields
            #[classattr]
            #[pyo3(name = "__match_args__")]
            fn match_args(
                py: pyo3::Python<'_>,
            ) -> pyo3::PyResult<pyo3::Bound<'_, pyo3::types::PyTuple>> {
                pyo3::types::PyTuple::new(py, Self::FIELDS)
            }
        }
    };
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$note:meta])* $field:ident: $type:ty),* $(,)? }
        $($more:tt)*
    ) => {
        $(#[$doc])*
        #[pyo3::pyclass(frozen, get_all, module = "duramen._native")]
        #[derive(Debug)]
        pub(crate) struct $name {
            $($(#[$note])* pub(crate) $field: $type,)*
        }

        impl $name {
            const FIELDS: &'static [&'static str] = &[$(stringify!($field)),*];
        }

        #[pyo3::pymethods]
        impl $name {
            fn __repr__(slf: &pyo3::Bound<'_, Self>) -> pyo3::PyResult<String> {
                $crate::record::repr(slf.as_any(), stringify!($name), Self::FIELDS)
            }

            $($more)*
        }
    };
}
pub(crate) use record;

/// `Name(field=value, …)`
pub(crate) fn repr(record: &Bound<'_, PyAny>, name: &str, fields: &[&str]) -> PyResult<String> {
    let mut shown = Vec::with_capacity(fields.len());
    for field in fields {
        shown.push(format!("{field}={}", record.getattr(*field)?.repr()?));
    }
    Ok(format!("{name}({})", shown.join(", ")))
}

/// An integer for a field of a record.
pub(crate) fn number<'py, N>(py: Python<'py>, number: N) -> Py<PyInt>
where
    N: IntoPyObject<'py, Target = PyInt, Output = Bound<'py, PyInt>, Error = Infallible>,
{
    let Ok(number) = number.into_pyobject(py);
    number.unbind()
}

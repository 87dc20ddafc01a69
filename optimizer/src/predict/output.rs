//! Predictions as columns.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float64Array, Float64Builder, Int64Array, ListBuilder, MapBuilder, RecordBatch, StringArray,
    StringBuilder,
};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use relata_experts::in_context::Prediction;

use crate::Result;

/// The table of predictions: what was given of the entities, what is predicted of them, and from how much.
pub(super) fn table(
    schema: &SchemaRef,
    given: Vec<ArrayRef>,
    predictions: &[Prediction],
    classes: &[String],
    used: [usize; 2],
) -> Result<RecordBatch> {
    let mut columns = given;
    columns.extend(if classes.is_empty() { numbers(predictions) } else { shares(predictions, classes)? });
    let count = |used: usize| Arc::new(Int64Array::from(vec![used as i64; predictions.len()])) as ArrayRef;
    columns.extend(used.map(count));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns).map_err(DataFusionError::from)?)
}

/// The most probable class, its probability, and the probability of each class.
fn shares(predictions: &[Prediction], classes: &[String]) -> Result<Vec<ArrayRef>> {
    let class = |prediction: &Prediction| prediction.class().and_then(|class| classes.get(class));
    let all = |prediction: &Prediction| match prediction {
        Prediction::Classes(shares) => shares.clone(),
        Prediction::Numbers(_) => vec![],
    };
    let largest = |prediction: &Prediction| Some(f64::from(*all(prediction).get(prediction.class()?)?));
    let mut map = MapBuilder::new(None, StringBuilder::new(), Float64Builder::new());
    for prediction in predictions {
        for (class, share) in classes.iter().zip(all(prediction)) {
            map.keys().append_value(class);
            map.values().append_value(f64::from(share));
        }
        map.append(true).map_err(DataFusionError::from)?;
    }
    Ok(vec![
        Arc::new(StringArray::from_iter(predictions.iter().map(class))),
        Arc::new(Float64Array::from_iter(predictions.iter().map(largest))),
        Arc::new(map.finish()),
    ])
}

/// The mean, the 5% and 95% quantiles, and all quantiles.
fn numbers(predictions: &[Prediction]) -> Vec<ArrayRef> {
    let all = |prediction: &Prediction| match prediction {
        Prediction::Numbers(quantiles) => quantiles.to_vec(),
        Prediction::Classes(_) => vec![],
    };
    let at = |quantile: fn(&[f32]) -> Option<&f32>| {
        let values = predictions.iter().map(|prediction| quantile(&all(prediction)).map(|value| f64::from(*value)));
        Arc::new(Float64Array::from_iter(values)) as ArrayRef
    };
    let mean = predictions.iter().map(|prediction| prediction.mean().map(f64::from));
    let mut list = ListBuilder::new(Float64Builder::new());
    for prediction in predictions {
        list.append_value(all(prediction).into_iter().map(|value| Some(f64::from(value))));
    }
    vec![Arc::new(Float64Array::from_iter(mean)), at(<[f32]>::first), at(<[f32]>::last), Arc::new(list.finish())]
}

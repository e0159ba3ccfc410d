//! Residual addition (He et al. 2016).

use std::time::Instant;

use super::{Layer, LayerKind, Operation, Sequence, Units, add_all};
use crate::error::Error;
use crate::train::context::{Context, ProfilePart};
use crate::train::parameter::Parameter;
use crate::train::shape::Shape;

/// `body(x) + shortcut(x)`, or `body(x) + x` without a shortcut.
pub struct Residual {
    body: Sequence,
    shortcut: Option<Sequence>,
}

impl Residual {
    /// A sum of two sequences.
    ///
    /// # Panics
    ///
    /// If their outputs (or, without a shortcut, the body's output and input) differ in shape.
    pub fn new(body: Sequence, shortcut: Option<Sequence>) -> Self {
        let other = shortcut.as_ref().map_or(body.input(), |shortcut| shortcut.output());
        assert_eq!(body.output(), other, "both sides of a residual addition have one shape");
        Self { body, shortcut }
    }
}

impl Layer for Residual {
    fn name(&self) -> &str {
        self.body.name()
    }

    fn kind(&self) -> LayerKind {
        LayerKind::Composite
    }

    fn output(&self) -> Shape {
        self.body.output()
    }

    fn operation(&self) -> Operation<'_> {
        Operation::Sum { body: &self.body, shortcut: self.shortcut.as_ref() }
    }

    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        self.body.forward(context, input, output)?;
        let Some(shortcut) = &mut self.shortcut else {
            let start = Instant::now();
            add_all(context, input, output);
            context.profile.add(ProfilePart::Forward(LayerKind::Join), start);
            return Ok(());
        };
        let mut other = context.take(output.len());
        let result = shortcut.forward(context, input, &mut other);
        let start = Instant::now();
        add_all(context, &other, output);
        context.profile.add(ProfilePart::Forward(LayerKind::Join), start);
        context.give(other);
        result
    }

    fn backward(
        &mut self,
        context: &mut Context,
        input: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let Some(grad_input) = grad_input else {
            self.body.backward(context, input, grad_output, None)?;
            return self
                .shortcut
                .as_mut()
                .map_or(Ok(()), |shortcut| shortcut.backward(context, input, grad_output, None));
        };
        self.body.backward(context, input, grad_output, Some(&mut *grad_input))?;
        let Some(shortcut) = &mut self.shortcut else {
            let start = Instant::now();
            add_all(context, grad_output, grad_input);
            context.profile.add(ProfilePart::Backward(LayerKind::Join), start);
            return Ok(());
        };
        let mut other = context.take(grad_input.len());
        let result = shortcut.backward(context, input, grad_output, Some(&mut other[..]));
        let start = Instant::now();
        add_all(context, &other, grad_input);
        context.profile.add(ProfilePart::Backward(LayerKind::Join), start);
        context.give(other);
        result
    }

    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter)) {
        self.body.visit(visit);
        self.shortcut.iter().for_each(|shortcut| shortcut.visit(visit));
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        self.body.visit_mut(visit);
        self.shortcut.iter_mut().for_each(|shortcut| shortcut.visit_mut(visit));
    }

    fn visit_units(&self, visit: &mut dyn FnMut(&str, Units)) {
        self.body.visit_units(visit);
        self.shortcut.iter().for_each(|shortcut| shortcut.visit_units(visit));
    }

    fn reset_units(&mut self) {
        self.body.reset_units();
        self.shortcut.iter_mut().for_each(|shortcut| shortcut.reset_units());
    }
}

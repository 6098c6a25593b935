"""The contract. Read in this order: schema, batch, features, prediction, stage, card, model, wrappers, pipeline."""

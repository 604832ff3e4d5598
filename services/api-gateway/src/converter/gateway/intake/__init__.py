"""Takes in a job's form as it streams: fields, model, reference images."""

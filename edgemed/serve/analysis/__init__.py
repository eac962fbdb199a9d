"""From a task to an answer: contract, preprocessing, inference, reading, results."""

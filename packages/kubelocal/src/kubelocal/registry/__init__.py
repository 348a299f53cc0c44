"""The verbs on objects and the rules that Kubernetes applies to them: defaults, validation, patches, deletion."""

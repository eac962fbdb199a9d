"""The DICOM Conformance Statement, `docs/dicom-conformance.md`, written from what the code itself says.

`page` fills `template.md`: each `{{ name }}` is a function of one of the other modules, which reads constants, asks
functions, or makes objects and looks at them. What is prose in the template, no function could tell.
"""

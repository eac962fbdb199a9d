"""`edgemed doctor`: is this machine in order for edgemed, check by check, and what to do where it is not.

`scene` gathers the facts once (files, packages, the driver, what Python can import), `checks` judges them; a check sees
nothing but the scene, so every judgement is tested on machines that exist only as files. Nothing is changed anywhere.
"""

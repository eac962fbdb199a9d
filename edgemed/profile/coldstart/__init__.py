"""Cold start: how long a fresh process takes until its first answer, and where that time goes.

child    the process that is timed
series   starts it again and again, with the page cache kept or dropped
"""

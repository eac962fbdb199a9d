from tests.serve.steady import make_steady

make_steady()

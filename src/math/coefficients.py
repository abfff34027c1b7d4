"""Coefficients of the polynomials of exp (D = 4) and tanh (D = 5) (docs/numerics.md, section 9): 
exp(r) = 1 + r + r^2 q(r), q of degree D, by Lawson's
weighted least squares towards the minimax of the relative error on |r| <= R, then rounded to float from the lowest up.
python3 coefficients.py [D]   (mpmath 1.3.0)"""
import struct
import sys
from mpmath import mp, mpf, matrix, lu_solve, exp, cos, pi
mp.dps = 40
R, D, N = mpf("0.34665"), int(sys.argv[1]) if len(sys.argv) > 1 else 4, 400


def to_float(x):
    return mpf(struct.unpack("f", struct.pack("f", float(x)))[0])


def fit(fixed, degree):
    xs = [R * cos(pi * (i + mpf(1) / 2) / N) for i in range(N)]
    free = range(len(fixed), degree + 1)
    rows = [[x ** (k + 2) / exp(x) for k in free] for x in xs]
    ys = [(exp(x) - 1 - x - sum(c * x ** (k + 2) for k, c in enumerate(fixed))) / exp(x) for x in xs]
    w = [mpf(1) / N] * N
    for _ in range(60):
        m = len(rows[0])
        a = matrix(m, m)
        b = matrix(m, 1)
        for r, y, wi in zip(rows, ys, w):
            for i in range(m):
                b[i] += wi * r[i] * y
                for j in range(m):
                    a[i, j] += wi * r[i] * r[j]
        c = lu_solve(a, b)
        e = [abs(sum(r[i] * c[i] for i in range(m)) - y) for r, y in zip(rows, ys)]
        s = sum(wi * ei for wi, ei in zip(w, e))
        w = [wi * ei / s for wi, ei in zip(w, e)]
    return [c[i] for i in range(m)], max(e)


fixed = []
for k in range(D + 1):
    c, err = fit(fixed, D)
    fixed.append(to_float(c[0]))
    print("c%d = %s  (%.9g)  error 2^%.2f" % (k + 2, float(fixed[-1]).hex(), fixed[-1], mp.log(err, 2)))

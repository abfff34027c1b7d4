/* The reference's float functions under the names of its two builds, for math.c and tests. */
#ifndef LOCKSTEP_MATH_REF_SCALAR_H
#define LOCKSTEP_MATH_REF_SCALAR_H
float lk__math_ref_fma_exp(float), lk__math_ref_fma_softmax_exp(float), lk__math_ref_fma_tanh(float);
float lk__math_ref_soft_exp(float), lk__math_ref_soft_softmax_exp(float), lk__math_ref_soft_tanh(float);
#endif

/* Functions of one number (docs/numerics.md, section 9). The float ones equal the kernels' vector forms bit for bit.
 * Unlike the kernels they leave the thread's control word as it is: a caller outside lk_pool_run sets it before
 * (lk_fpenv_set). */
#ifndef LOCKSTEP_MATH_SCALAR_H
#define LOCKSTEP_MATH_SCALAR_H

#ifdef __cplusplus
extern "C" {
#endif

float lk_exp(float), lk_log(float), lk_tanh(float), lk_sin(float), lk_cos(float);
float lk_softmax_exp(float); /* exp for x >= -64, +0 below, NaN for NaN */
double lk_exp64(double), lk_log64(double), lk_pow64(double base, double exponent);
double lk_cos_turns64(double turns); /* cos(2 pi turns) */
double lk_sqrt64(double);

#ifdef __cplusplus
}
#endif
#endif

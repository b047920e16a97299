"""The factorization does what the paper says, whatever the shape."""

import math

import numpy as np
import pytest
import torch
from sklearn.base import clone

from ember_demo import SparseMatrixFactorization
from ember_demo.factorization import SemiNonnegativeFactorization


def dense_reference(X, rank, sparsity, ridge, iterations, seed=42):
    """The paper's factorization written out with numpy in the plainest way: same start, same steps, best seen."""
    n, d = X.shape
    torch.manual_seed(seed)
    G = torch.randn(n, rank).numpy().astype(np.float64)
    torch.randn(d, rank)
    A = X.T.astype(np.float64)
    keep = math.ceil(sparsity * n)
    best, best_G, curve = np.inf, None, []
    for _ in range(iterations):
        F = A @ G @ np.linalg.inv(G.T @ G + ridge * np.eye(rank))
        norms = np.linalg.norm(G, axis=0)
        norms[norms == 0] = 1
        G, F = G / norms, F * norms
        G = A.T @ F @ np.linalg.inv(F.T @ F + ridge * np.eye(rank))
        for k in range(rank):
            G[np.argsort(-np.abs(G[:, k]))[keep:], k] = 0
        error = np.linalg.norm(A - F @ G.T) ** 2
        curve.append(error)
        if error < best:
            best, best_G = error, G.copy()
    return best, best_G, curve


@pytest.mark.parametrize("n, d, rank, sparsity", [(120, 16, 4, 0.1), (300, 24, 6, 0.05), (90, 32, 3, 0.2)])
def test_it_agrees_with_a_plain_dense_implementation(n, d, rank, sparsity):
    rng = np.random.default_rng(n)
    X = (rng.normal(size=(n, rank)) * (rng.random((n, rank)) < 0.15)) @ rng.normal(size=(rank, d)) + 0.05 * rng.normal(size=(n, d))
    X = X.astype(np.float32)
    iterations = 12
    smf = SparseMatrixFactorization(rank, sparsity=sparsity, max_iter=iterations).fit(X)
    best, G, curve = dense_reference(X, rank, sparsity, 1e-4, iterations)
    assert smf.n_iter_ == iterations
    assert np.allclose(smf.error_curve_, curve, rtol=1e-3)
    assert smf.reconstruction_err_ == pytest.approx(best, rel=1e-3)
    assert ((smf.activations_ != 0) == (G != 0)).mean() > 0.99
    assert smf.reconstruction_err_ == pytest.approx(((X - smf.activations_ @ smf.components_).astype(np.float64) ** 2).sum(), rel=1e-4)


@pytest.mark.parametrize("sparsity", [0.01, 0.03, 0.5, 1.0])
def test_it_never_keeps_more_than_its_share_of_the_tokens(sparsity):
    X = np.random.default_rng(0).normal(size=(130, 12))
    smf = SparseMatrixFactorization(5, sparsity=sparsity, max_iter=10).fit(X)
    assert (smf.activations_ != 0).sum(axis=0).max() <= math.ceil(sparsity * 130)


def test_the_same_seed_gives_the_same_factors_and_another_seed_others():
    X = np.random.default_rng(1).normal(size=(80, 10))
    first, again, other = (SparseMatrixFactorization(4, 0.1, max_iter=20, random_state=s).fit(X) for s in (1, 1, 2))
    assert np.array_equal(first.components_, again.components_)
    assert not np.allclose(first.components_, other.components_)


def test_it_stops_when_nothing_improves():
    X = np.random.default_rng(2).normal(size=(60, 8))
    smf = SparseMatrixFactorization(3, 0.1, max_iter=5000, patience=15).fit(X)
    assert smf.n_iter_ < 5000
    assert smf.reconstruction_err_ == min(smf.error_curve_)


def test_it_is_a_scikit_learn_estimator():
    smf = SparseMatrixFactorization(4, sparsity=0.2, max_iter=5)
    assert clone(smf).get_params() == smf.get_params()
    X = np.random.default_rng(3).normal(size=(50, 8)).astype(np.float32)
    assert smf.fit_transform(X).shape == (50, 4)
    assert smf.transform(X[:20]).shape == (20, 4)
    assert smf.inverse_transform(smf.activations_).shape == X.shape


@pytest.mark.parametrize("bad", [np.full((5, 3), np.nan), np.zeros(4)])
def test_bad_input_is_refused(bad):
    with pytest.raises(ValueError):
        SparseMatrixFactorization(2).fit(bad)
    fitted = SparseMatrixFactorization(2, max_iter=1).fit(np.eye(5))
    with pytest.raises(ValueError, match="4 columns"):
        fitted.transform(np.ones((3, 4)))


def test_semi_nonnegative_factors_follow_the_plain_rule_and_find_groups_that_are_there():
    """Ding et al. 2010, written out with loops: F by least squares, G by the multiplicative rule."""
    rng = np.random.default_rng(3)
    groups = np.zeros((3, 30))
    for k in range(3):
        groups[k, 10 * k : 10 * k + 3] = rng.normal(size=3)
    X = (np.abs(rng.normal(size=(200, 3))) * (rng.random((200, 3)) < 0.3)) @ groups
    found = SemiNonnegativeFactorization(3, sparsity=0.1, max_iter=6).fit(X)
    G = torch.rand(200, 3, generator=torch.Generator().manual_seed(42)).double().numpy()
    curve = []
    for _ in range(6):
        F = X.T @ G @ np.linalg.inv(G.T @ G + 1e-4 * np.eye(3))
        for k in range(3):
            F[np.argsort(-np.abs(F[:, k]))[3:], k] = 0
        A, B = X @ F, F.T @ F
        for i in range(200):
            for k in range(3):
                up = max(A[i, k], 0) + sum(G[i, j] * max(-B[j, k], 0) for j in range(3))
                down = max(-A[i, k], 0) + sum(G[i, j] * max(B[j, k], 0) for j in range(3))
                A_ik = np.sqrt(up / max(down, 1e-12))
                A[i, k] = A_ik  # the factor; G itself is changed only after the whole pass
        G = G * A
        curve.append(np.linalg.norm(X - G @ F.T) ** 2)
    assert np.allclose(found.error_curve_, curve, rtol=2e-3)
    assert (found.activations_ >= 0).all()
    assert ((found.components_ != 0).sum(axis=1) <= 3).all()
    best = min(SemiNonnegativeFactorization(3, sparsity=0.1, random_state=s).fit(X).reconstruction_err_ for s in range(4))
    assert best < 0.05 * (X**2).sum()
